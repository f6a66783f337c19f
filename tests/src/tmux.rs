//! A terminal that is looked at as a user does: what stands on its screen, and its modes. It is a
//! window of a tmux server of its own, which ends with its handle.

use std::fmt::Write as _;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::command::binary;

/// The longest time that a screen may take to become what is waited for.
const LIMIT: Duration = Duration::from_secs(20);
/// The pause between two looks.
const POLL: Duration = Duration::from_millis(20);

/// A window of a terminal.
#[derive(Debug)]
pub struct Tmux {
    directory: TempDir,
}

impl Tmux {
    /// Opens a window of that size in which the shell runs a script. `vmstrobe` is on its path, and
    /// its directory is one of its own.
    ///
    /// # Panics
    ///
    /// If tmux cannot be run.
    pub fn open((columns, rows): (u16, u16), script: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let tmux = Self { directory };
        let programs = binary().parent().expect("the binary is in a directory").display();
        let mut line = format!("PATH={programs}:$PATH; export PATH; unset NO_COLOR COLORTERM; ");
        line.push_str(script);
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let home = tmux.directory.path().display().to_string();
        tmux.run(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            "-c",
            &home,
            &line,
        ]);
        tmux.run(&["set-option", "-g", "remain-on-exit", "on"]);
        // Esc is a key at once.
        tmux.run(&["set-option", "-g", "escape-time", "0"]);
        tmux
    }

    /// Returns the directory in which the script runs.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    fn output(&self, args: &[&str]) -> Output {
        let socket = self.directory.path().join("tmux");
        let output = Command::new("tmux").arg("-S").arg(socket).args(args).output();
        output.expect("tmux can be run")
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {args:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types keys, by tmux's names or as characters.
    ///
    /// # Panics
    ///
    /// If there is no window any more.
    #[track_caller]
    pub fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Types a text as it stands.
    ///
    /// # Panics
    ///
    /// If there is no window any more.
    #[track_caller]
    pub fn text(&self, text: &str) {
        self.run(&["send-keys", "-l", "--", text]);
    }

    /// Returns the lines of the screen, without blanks at their ends.
    ///
    /// # Panics
    ///
    /// If there is no window any more.
    #[track_caller]
    pub fn screen(&self) -> Vec<String> {
        let text = self.run(&["capture-pane", "-p"]);
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Returns the screen with the escape sequences of its styles.
    ///
    /// # Panics
    ///
    /// If there is no window any more.
    #[track_caller]
    pub fn styled(&self) -> String {
        self.run(&["capture-pane", "-p", "-e"])
    }

    /// Changes the size of the window.
    ///
    /// # Panics
    ///
    /// If there is no window any more.
    #[track_caller]
    pub fn resize(&self, columns: u16, rows: u16) {
        self.run(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Returns a fact of tmux about the window: `alternate_on`, `cursor_flag`, `pane_pid`.
    ///
    /// # Panics
    ///
    /// If there is no window any more.
    #[track_caller]
    pub fn fact(&self, name: &str) -> String {
        self.run(&["display-message", "-p", &format!("#{{{name}}}")]).trim().to_owned()
    }

    /// Waits until the screen is as wanted, and returns it.
    ///
    /// # Panics
    ///
    /// If it does not become so, with the screen.
    #[track_caller]
    pub fn wait(&self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            if Instant::now() > deadline {
                let mut text = String::new();
                for line in screen {
                    let _ = writeln!(text, "{line}");
                }
                panic!("never: {what}\n{text}");
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until a text is on the screen, and returns the screen.
    ///
    /// # Panics
    ///
    /// As [`Tmux::wait`] does.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> Vec<String> {
        self.wait(text, |screen| screen.iter().any(|line| line.contains(text)))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // It fails only when the server has ended already. A drop must not panic.
        let socket = self.directory.path().join("tmux");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}
