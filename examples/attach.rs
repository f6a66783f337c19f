//! Prints two rates of each vCPU of a running VMM, ten times a second for 2 s.
//!
//! ```text
//! cargo run --release -p vmstrobe-examples --example attach -- PID
//! ```

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let pid: u32 = std::env::args().nth(1).ok_or("name a VMM by its process id")?.parse()?;

    // vmstrobe: from here
    let mut session = vmstrobe::attach(pid)?.sample("vcpu: exits, halt_exits", 10.0)?;
    let mut tally = vmstrobe::Tally::new(session.first());
    for sample in session.samples().take(20) {
        tally.add(&sample);
        for stat in tally.stats(true) {
            let (path, rate) = (stat.path.unwrap_or_default(), stat.rate.ok_or("reset")?);
            println!("{path} {} {:.0}/s", stat.schema.descs()[stat.desc].name, rate.per_second);
        }
        tally = tally.next();
    }
    // vmstrobe: to here
    Ok(())
}
