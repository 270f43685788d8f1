//! Whether the system would grant a mapping, asked without giving up another one.

use std::io;
use std::ptr;

/// Takes `bytes` of address space and gives them back. The error is what a mapping of that size would fail with.
///
/// The pages are neither readable nor backed, so this costs no memory and no commit charge.
#[allow(unsafe_code)]
pub(super) fn probe(bytes: usize) -> io::Result<()> {
    // SAFETY: a new anonymous mapping at an address of the system's choice touches no memory that is in use.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: exactly the mapping made above, to which nothing refers.
    if unsafe { libc::munmap(address, bytes) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::probe;

    #[test]
    fn a_small_mapping_is_granted_and_one_larger_than_the_address_space_is_refused() {
        probe(1 << 20).unwrap();
        assert!(probe(usize::MAX - (1 << 20)).is_err());
    }
}
