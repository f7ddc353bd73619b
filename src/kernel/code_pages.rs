//! The pages of the program's file that only its start needed.
//!
//! Owns the unsafe call that takes them out of the memory of this process.
//! Refuses to touch a page that was ever written.

use std::fs;
use std::ptr;

use rustix::mm::{Advice, madvise};

/// Takes the program's code and constants out of the resident memory of this
/// process. What is used again comes back page by page, out of the page cache
/// of the kernel. Parsing arguments and starting threads takes megabytes of
/// code that serving clients never needs: call this once, right before it.
/// Does nothing where `/proc` is missing.
pub fn release_code_pages() {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for unwritten in unwritten(&maps) {
        release(unwritten);
    }
}

#[expect(unsafe_code, reason = "no safe crate offers madvise")]
fn release((from, until): (usize, usize)) {
    // SAFETY: the range is a mapping of a file, of which no page was ever
    // written and none can be: each is read again as it is now. If the call
    // fails, pages merely stay.
    let _ = unsafe {
        let start = ptr::without_provenance_mut(from);
        madvise(start, until - from, Advice::LinuxDontNeed)
    };
}

/// The ranges of mappings of files that cannot be written and never were. The
/// linker writes to some before it takes the right away.
fn unwritten(maps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut range = None;
    for line in maps.lines() {
        if let Some(start) = mapping(line) {
            range = start;
        } else if line.starts_with("Anonymous:") {
            let is_unwritten = line.trim_end().ends_with(" 0 kB");
            found.extend(range.take().filter(|_| is_unwritten));
        }
    }
    found
}

/// Whether a line begins a mapping, and its range if no page of it can differ
/// from its file from now on.
fn mapping(line: &str) -> Option<Option<(usize, usize)>> {
    let mut words = line.split_ascii_whitespace();
    let (from, until) = words.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = (address(from)?, address(until)?);
    let rights = words.next()?;
    let is_of_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    let cannot_change = rights.as_bytes().get(1) == Some(&b'-') && rights.ends_with('p');
    Some((is_of_file && cannot_change).then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_of_files_that_were_never_written_are_released() {
        let maps = "\
1000-2000 r-xp 0013d000 fe:00 787 /usr/bin/a program\nRss: 4 kB\nAnonymous:             0 kB\n\
3000-4000 r--p 0013d000 fe:00 787 /usr/bin/program\nAnonymous:             4 kB\n\
5000-6000 r--p 0013d000 fe:00 787 /usr/bin/program\nAnonymous:             0 kB\n\
6000-7000 rw-p 0013d000 fe:00 787 /usr/bin/program\nAnonymous:             0 kB\n\
7000-8000 r--s 0013d000 fe:00 787 /dev/shm/a\nAnonymous:             0 kB\n\
8000-9000 r-xp 00000000 00:00 0   [vdso]\nAnonymous:             0 kB\n\
9000-a000 r--p 00000000 00:00 0 \nAnonymous:             0 kB\n";
        assert_eq!(unwritten(maps), [(0x1000, 0x2000), (0x5000, 0x6000)]);
    }

    #[test]
    fn a_program_goes_on_after_its_pages_were_released() {
        static CONSTANT: [u64; 1000] = [7; 1000];
        release_code_pages();
        assert_eq!(CONSTANT.iter().sum::<u64>(), 7000);
        assert!(std::panic::catch_unwind(|| panic!("unwinding reads tables")).is_err());
    }
}
