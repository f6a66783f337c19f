//! Compressed buffers, as they stand in the body of a message: the length of the uncompressed bytes
//! (8 bytes), a frame of zstd or LZ4, and zeros up to a multiple of 8. A length of -1 means that
//! the bytes follow as they are.
//!
//! Invariant: a buffer is uncompressed into exactly as many bytes as its reader expects, whatever
//! lengths stand in it.

use std::fmt;
use std::io::{self, Read};

use zstd::bulk;

/// The level of zstd. It is the lowest at which a repeated column, such as that of `tick`, is found
/// again in buffers of every size: a file is half as large as at level 1, and takes no more time.
const ZSTD_LEVEL: i32 = 3;
/// The length that marks bytes that are not compressed.
const UNCOMPRESSED: i64 = -1;
/// The size of the length before a buffer.
const PREFIX_BYTES: usize = 8;

/// The header of an LZ4 frame: its magic number, independent blocks (0x60) of at most 256 KiB
/// (0x50), and the header's checksum.
const LZ4_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x50, 0xfb];
/// The largest block of that frame.
const LZ4_BLOCK_BYTES: usize = 256 << 10;
/// The bit of a block's length that says that the block is not compressed.
const LZ4_PLAIN: u32 = 1 << 31;

/// The compression of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// zstd: a third to a half of the size of LZ4.
    #[default]
    Zstd,
    /// LZ4: 10 to 25 % less time to compare, encode and write a batch.
    Lz4,
}

impl Compression {
    /// Returns Arrow's number of the codec.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Lz4 => 0,
            Self::Zstd => 1,
        }
    }

    /// Returns the codec of Arrow's number.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Lz4, Self::Zstd].into_iter().find(|codec| codec.number() == number)
    }
}

/// Compresses buffers, with memory that it keeps.
pub(super) struct Compressor {
    compression: Compression,
    zstd: bulk::Compressor<'static>,
    frame: Vec<u8>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl Compressor {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        let zstd = bulk::Compressor::new(ZSTD_LEVEL)?;
        Ok(Self { compression, zstd, frame: Vec::new() })
    }

    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    /// Appends a buffer to a body. Returns its length without the zeros behind it; 0 if it is
    /// empty.
    pub(super) fn append(&mut self, body: &mut Vec<u8>, raw: &[u8]) -> io::Result<i64> {
        if raw.is_empty() {
            return Ok(0);
        }
        match self.compression {
            Compression::Zstd => {
                self.frame.clear();
                self.frame.reserve(zstd::zstd_safe::compress_bound(raw.len()));
                self.zstd.compress_to_buffer(raw, &mut self.frame)?;
            }
            Compression::Lz4 => lz4(raw, &mut self.frame),
        }
        let (length, bytes) = if self.frame.len() < raw.len() {
            (raw.len() as i64, &*self.frame)
        } else {
            (UNCOMPRESSED, raw)
        };
        body.extend(length.to_le_bytes());
        body.extend(bytes);
        body.resize(body.len().next_multiple_of(8), 0);
        Ok((PREFIX_BYTES + bytes.len()) as i64)
    }
}

/// Writes an LZ4 frame.
fn lz4(raw: &[u8], frame: &mut Vec<u8>) {
    frame.clear();
    frame.extend(LZ4_HEADER);
    for block in raw.chunks(LZ4_BLOCK_BYTES) {
        let start = frame.len();
        let most = lz4_flex::block::get_maximum_output_size(block.len());
        frame.resize(start + 4 + most, 0);
        let length = lz4_flex::block::compress_into(block, &mut frame[start + 4..])
            .expect("the output has the size that the library asks for");
        let (length, word) = if length < block.len() {
            (length, length as u32)
        } else {
            frame[start + 4..start + 4 + block.len()].copy_from_slice(block);
            (block.len(), block.len() as u32 | LZ4_PLAIN)
        };
        frame[start..start + 4].copy_from_slice(&word.to_le_bytes());
        frame.truncate(start + 4 + length);
    }
    // The end mark.
    frame.extend([0; 4]);
}

/// Uncompresses buffers.
pub(super) struct Decompressor {
    zstd: bulk::Decompressor<'static>,
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl Decompressor {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { zstd: bulk::Decompressor::new()? })
    }

    /// Returns the length that a buffer will have when uncompressed, as it claims.
    pub(super) fn claimed(buffer: &[u8], compression: Option<Compression>) -> Option<usize> {
        if compression.is_none() || buffer.is_empty() {
            return Some(buffer.len());
        }
        let (length, bytes) = buffer.split_first_chunk()?;
        match i64::from_le_bytes(*length) {
            UNCOMPRESSED => Some(bytes.len()),
            length => usize::try_from(length).ok(),
        }
    }

    /// Uncompresses a buffer into `out`, which is as long as the caller expects. Returns whether it
    /// fills `out` exactly; a buffer that is not compressed may be padded.
    pub(super) fn fill(
        &mut self,
        buffer: &[u8],
        compression: Option<Compression>,
        out: &mut [u8],
    ) -> bool {
        let plain = |bytes: &[u8], out: &mut [u8]| match bytes.get(..out.len()) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                true
            }
            None => false,
        };
        let Some(compression) = compression else { return plain(buffer, out) };
        if out.is_empty() {
            return true;
        }
        let Some((length, bytes)) = buffer.split_first_chunk() else { return false };
        match (i64::from_le_bytes(*length), compression) {
            (UNCOMPRESSED, _) => plain(bytes, out),
            (length, _) if usize::try_from(length) != Ok(out.len()) => false,
            (_, Compression::Zstd) => {
                self.zstd.decompress_to_buffer(bytes, out).is_ok_and(|length| length == out.len())
            }
            (_, Compression::Lz4) => {
                lz4_flex::frame::FrameDecoder::new(bytes).read_exact(out).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &[u8], compression: Compression) {
        let mut compressor = Compressor::new(compression).expect("memory");
        let mut body = vec![9; 8];
        let length = compressor.append(&mut body, raw).expect("memory") as usize;
        assert!(body.len().is_multiple_of(8) && body.len() < 8 + length + 8);
        let buffer = &body[8..8 + length];
        let mut decompressor = Decompressor::new().expect("memory");
        let compression = Some(compression);
        assert_eq!(Decompressor::claimed(buffer, compression), Some(raw.len()));
        for expected in [raw.len(), raw.len() / 2, raw.len() + 1] {
            let mut out = vec![7; expected];
            let is_filled = decompressor.fill(buffer, compression, &mut out);
            assert_eq!(is_filled && out == raw, expected == raw.len());
        }
    }

    #[test]
    fn buffers_survive_the_way_there_and_back() {
        let mixed: Vec<u8> = (0..700_000_u32).map(|n| (n.wrapping_mul(n) >> 13) as u8).collect();
        for compression in [Compression::Zstd, Compression::Lz4] {
            check(&[1, 2, 3], compression);
            check(&[0; 600_000], compression);
            check(&mixed, compression);
            assert_eq!(Compression::from_number(compression.number()), Some(compression));
        }
        assert_eq!(Compression::from_number(2), None);
    }
}
