//! Where lines go: [`Target`], and [`Plain`] for pipes, terminals and devices.
//!
//! Invariant: lines are written whole. One write takes as many whole lines as fit into [`PIECE`] bytes: a pipe takes that
//! much at once, and the kernel looks whether the process was killed only between pages. What a failed write has cut is
//! ended by a line break before anything else is written.

use std::{
    io::{self, Write},
    thread,
    time::Duration,
};

/// What a pipe takes as a whole (`PIPE_BUF`), and a page of a file, in bytes.
const PIECE: usize = 4096;
/// Pause before a target that takes nothing at the moment is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Takes lines.
pub(super) trait Target: Send + 'static {
    /// Writes whole lines, each ended by a line break.
    fn write_lines(&mut self, lines: &[u8]) -> Result<(), Unwritten>;
}

impl Target for Box<dyn Target> {
    fn write_lines(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        (**self).write_lines(lines)
    }
}

/// Lines could not be written.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// How many bytes of the lines were written: whole lines.
    pub(super) written: usize,
    pub(super) error: io::Error,
}

/// A target that is only written to.
pub(super) struct Plain<W> {
    writer: W,
    is_torn: bool,
}

impl<W> Plain<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, is_torn: false }
    }
}

impl<W: Write + Send + 'static> Target for Plain<W> {
    fn write_lines(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        write_pieces(&mut self.writer, &mut self.is_torn, 0, lines)
    }
}

/// Writes lines to where `offset` bytes are already. `is_torn` says whether what is there ends within a line.
pub(super) fn write_pieces(
    writer: &mut impl Write,
    is_torn: &mut bool,
    offset: u64,
    lines: &[u8],
) -> Result<(), Unwritten> {
    if *is_torn {
        write_piece(writer, is_torn, b"\n").map_err(|error| Unwritten { written: 0, error })?;
    }
    let into_page = usize::try_from(offset % PIECE as u64).expect("less than a page");
    let mut written = 0;
    while written < lines.len() {
        let end = written + piece(&lines[written..], PIECE - (into_page + written) % PIECE);
        write_piece(writer, is_torn, &lines[written..end]).map_err(|error| Unwritten { written, error })?;
        written = end;
    }
    writer.flush().map_err(|error| Unwritten { written, error })
}

/// How many bytes to write at once: the whole lines within `room`, or one line if none fits.
pub(super) fn piece(lines: &[u8], room: usize) -> usize {
    let within = &lines[..lines.len().min(room)];
    let last_end = within.iter().rposition(|byte| *byte == b'\n');
    let end = last_end.or_else(|| lines.iter().position(|byte| *byte == b'\n'));
    end.map_or(lines.len(), |end| end + 1)
}

fn write_piece(writer: &mut impl Write, is_torn: &mut bool, piece: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while written < piece.len() {
        let error = match writer.write(&piece[written..]) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(n) => {
                written += n;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Somebody has made a pipe that we share non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(BUSY_PAUSE);
                continue;
            }
            Err(error) => error,
        };
        if let Some(last) = piece[..written].last() {
            *is_torn = *last != b'\n';
        }
        return Err(error);
    }
    *is_torn = false;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers each write; takes at most so many bytes in all.
    #[derive(Default)]
    struct Writes {
        all: Vec<Vec<u8>>,
        left: usize,
    }

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.left);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.left -= taken;
            self.all.push(bytes[..taken].to_vec());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(lengths: &[usize]) -> Vec<u8> {
        lengths.iter().flat_map(|length| [vec![b'x'; length - 1], vec![b'\n']].concat()).collect()
    }

    #[test]
    fn only_a_line_that_crosses_a_page_is_written_across_one() {
        let all = lines(&[1000, 1000, 1000, 1000, 1000, 9000, 10]);
        for offset in [0, 100, 4095, 4096, 8000] {
            let mut writes = Writes { left: usize::MAX, ..Writes::default() };
            write_pieces(&mut writes, &mut false, offset, &all).unwrap();
            let mut at = offset;
            for write in &writes.all {
                assert_eq!(write.last(), Some(&b'\n'));
                let end = at + write.len() as u64;
                let is_one_line = write.iter().filter(|byte| **byte == b'\n').count() == 1;
                assert!(at / 4096 == (end - 1) / 4096 || is_one_line, "{at}..{end} from {offset}");
                at = end;
            }
            assert_eq!(writes.all.concat(), all);
        }
    }

    #[test]
    fn what_a_failed_write_has_cut_does_not_take_the_next_line_with_it() {
        let mut target = Plain::new(Writes { left: 15, ..Writes::default() });
        let failed = target.write_lines(&lines(&[10, 5000])).unwrap_err();
        assert_eq!((failed.written, failed.error.kind()), (10, io::ErrorKind::StorageFull));
        target.writer.left = 100;
        target.write_lines(b"next\n").unwrap();
        assert_eq!(target.writer.all.concat(), b"xxxxxxxxx\nxxxxx\nnext\n");

        // Nothing was cut: no empty line.
        let mut target = Plain::new(Writes { left: 0, ..Writes::default() });
        assert_eq!(target.write_lines(b"lost\n").unwrap_err().written, 0);
        target.writer.left = 100;
        target.write_lines(b"next\n").unwrap();
        assert_eq!(target.writer.all.concat(), b"next\n");
    }
}
