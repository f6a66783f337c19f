//! Pages, compressed by zstd.
//!
//! Invariant: a page is uncompressed into no more bytes than its header says, and memory is asked
//! for only as they arrive.

use std::fmt;
use std::io::{self, Read};

use zstd::bulk;
use zstd::stream::read::Decoder;

/// The level of zstd. Level 3 makes files 3 % smaller, in 10 % more time.
pub(super) const ZSTD_LEVEL: i32 = 1;

/// Compresses pages.
pub(super) struct Compressor {
    zstd: bulk::Compressor<'static>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { zstd: bulk::Compressor::new(ZSTD_LEVEL)? })
    }

    /// Returns a page as one frame.
    pub(super) fn compress(&mut self, page: &[u8]) -> io::Result<Vec<u8>> {
        self.zstd.compress(page)
    }
}

/// Uncompresses a page of that many bytes; `None` if it has another number.
pub(super) fn uncompress(page: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    // One byte more shows that there are more.
    let most = bytes as u64 + 1;
    Decoder::with_buffer(page).ok()?.take(most).read_to_end(&mut out).ok()?;
    (out.len() == bytes).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_bytes_that_were_promised() {
        let page: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let compressed = Compressor::new().and_then(|mut one| one.compress(&page)).expect("memory");
        assert_eq!(uncompress(&compressed, page.len()).as_deref(), Some(&*page));
        assert_eq!(uncompress(&compressed, page.len() - 1), None);
        assert_eq!(uncompress(&compressed, page.len() + 1), None);
        assert_eq!(uncompress(&compressed[..compressed.len() / 2], page.len()), None);
        assert_eq!(uncompress(&[], 5), None);
    }
}
