//! The words of the FUSE protocol that the server needs, as the kernel's `linux/fuse.h` lays them
//! out, for one directory with one file in it.

/// The most bytes that the kernel sends at once to a server that takes `WRITE_MAX` of data.
pub const REQUEST_MAX: usize = 1 << 16;

/// A request: 40 bytes, then what belongs to its kind.
const REQUEST_HEADER: usize = 40;
/// A reply: 16 bytes, then what belongs to its kind.
const REPLY_HEADER: usize = 16;

const WRITE_MAX: u32 = 4096;
const MAJOR: u32 = 7;
/// The newest minor version whose words are these.
const MINOR_MAX: u32 = 31;
const ENOSYS: i32 = 38;

const ROOT: u64 = 1;
const FILE: u64 = 2;
/// The time in seconds for which the kernel may cache what it was told.
const REMEMBERED: u64 = 1000;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// The request to look up a name.
    Lookup,
    /// The request for the attributes of a file.
    GetAttr,
    /// The request to open a file or directory.
    Open,
    /// A descriptor of a file is being closed.
    Flush,
    /// The last descriptor of a file or directory has been closed.
    Release,
    /// The connection begins.
    Init,
    /// A request that has no reply.
    NoReply,
    /// Any other request.
    Other,
}

/// A request of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its kind.
    pub opcode: Opcode,
    /// The user id of the process that caused it.
    pub uid: u32,
    /// The id of that process, in the pid namespace of the mount.
    pub pid: u32,
    unique: u64,
    node: u64,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Parses a request of the kernel; `None` if it is too short.
    pub fn parse(bytes: &'a [u8]) -> Option<Request<'a>> {
        let (header, body) = bytes.split_at_checked(REQUEST_HEADER)?;
        let opcode = match u32_at(header, 4) {
            1 => Opcode::Lookup,
            3 => Opcode::GetAttr,
            14 | 27 => Opcode::Open,
            25 => Opcode::Flush,
            18 | 29 => Opcode::Release,
            26 => Opcode::Init,
            2 | 36 | 42 => Opcode::NoReply,
            _ => Opcode::Other,
        };
        let (unique, node) = (u64_at(header, 8), u64_at(header, 16));
        Some(Request {
            opcode,
            uid: u32_at(header, 24),
            pid: u32_at(header, 32),
            unique,
            node,
            body,
        })
    }

    /// Returns true if it is about the file, not about the directory.
    pub fn is_of_file(&self) -> bool {
        self.node == FILE
    }

    /// Builds the reply of a well-behaved server. With `forgetful` the kernel asks for attributes
    /// again each time.
    pub fn reply(&self, forgetful: bool) -> Vec<u8> {
        let remembered = if forgetful { 0 } else { REMEMBERED };
        let mut body = Vec::new();
        let mut error = 0;
        match self.opcode {
            Opcode::Init => init(&mut body, u32_at(self.body, 4)),
            Opcode::Lookup => {
                // node, generation, how long both are remembered
                words(&mut body, &[FILE, 1, REMEMBERED, remembered, 0]);
                attributes(&mut body, FILE);
            }
            Opcode::GetAttr => {
                words(&mut body, &[remembered, 0]);
                attributes(&mut body, self.node);
            }
            Opcode::Open => words(&mut body, &[1, 0]),
            Opcode::Release | Opcode::Flush | Opcode::NoReply => {}
            Opcode::Other => error = -ENOSYS,
        }
        let mut reply = Vec::new();
        reply.extend(((REPLY_HEADER + body.len()) as u32).to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(self.unique.to_ne_bytes());
        reply.extend(body);
        reply
    }
}

fn init(body: &mut Vec<u8>, minor: u32) {
    let readahead = 4096_u32;
    for word in [MAJOR, minor.min(MINOR_MAX), readahead, 0, 0, WRITE_MAX] {
        body.extend(word.to_ne_bytes());
    }
    body.resize(64, 0);
}

/// Writes a `struct fuse_attr` of 88 bytes.
fn attributes(body: &mut Vec<u8>, node: u64) {
    const DIRECTORY: u32 = 0o040_755;
    const REGULAR: u32 = 0o100_666;
    let (mode, links, size) = if node == ROOT { (DIRECTORY, 2, 0) } else { (REGULAR, 1, 4096) };
    // inode, size, blocks, three times
    words(body, &[node, size, 0, 0, 0, 0]);
    // their nanoseconds, mode, links, uid, gid, device, block size, flags
    for word in [0, 0, 0, mode, links, 0, 0, 0, 0, 0_u32] {
        body.extend(word.to_ne_bytes());
    }
}

fn words(body: &mut Vec<u8>, words: &[u64]) {
    words.iter().for_each(|word| body.extend(word.to_ne_bytes()));
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_ne_bytes)
}
