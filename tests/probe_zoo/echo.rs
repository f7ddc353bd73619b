//! Servers that return what they get, as bytes or as whole frames.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::unbounded;
use crate::patience::{LOOK, Manners, THINK, each_on_a_thread, is_timeout};
use crate::row::Small;

/// Reads of this size or less come from clients that wait for the answer.
const SMALL_READ_BYTES: usize = 1024;

/// What an echo server does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Reads only what it has written.
    Plain,
    /// Returns frames (4 bytes of length, payload) when they are whole.
    Frames,
    /// Reads on, and keeps what waits in memory, without a limit.
    Unbounded,
    /// Reads on, and drops what does not fit; throws out only one who sends while it is stuck.
    DefendedWhileDataFlows,
    /// Reads on, and drops what does not fit.
    Dropping,
    /// Loses a byte now and then, and one of each long read.
    Losing,
    /// One thread for all, which blocks.
    Blocking,
    /// Once somebody is stuck, everybody else is reset.
    PunishingOthers,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Echo {
    pub(crate) habit: Habit,
    pub(crate) manners: Manners,
    pub(crate) banner: &'static str,
    /// Before it returns bytes, it reads so many lines and answers each with one of these.
    pub(crate) replies: &'static [&'static str],
    /// Before the first byte is read.
    pub(crate) start: Duration,
    /// Ended so long after the connect, whatever it does.
    pub(crate) lifetime: Option<Duration>,
}

impl Echo {
    pub(crate) const fn new(habit: Habit, manners: Manners) -> Self {
        Self {
            habit,
            manners,
            banner: "",
            replies: &[],
            start: Duration::ZERO,
            lifetime: None,
        }
    }

    fn client(&self, stream: &TcpStream, shared: &Shared) -> io::Result<()> {
        let mut manners = self.manners;
        manners.cut_at = self.lifetime.map(|lifetime| Instant::now() + lifetime);
        manners.write(stream, self.banner.as_bytes())?;
        for reply in self.replies {
            read_line(stream)?;
            manners.write(stream, reply.as_bytes())?;
        }
        thread::sleep(self.start);
        stream.set_read_timeout(Some(LOOK))?;
        match self.habit {
            Habit::Frames => frames(stream, &manners),
            Habit::Unbounded => keep_all(stream, manners),
            Habit::DefendedWhileDataFlows | Habit::Dropping => self.drop_excess(stream),
            _ => self.bytes(stream, &manners, shared),
        }
    }

    fn bytes(&self, stream: &TcpStream, manners: &Manners, shared: &Shared) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            if self.habit == Habit::PunishingOthers && shared.is_somebody_stuck.load(Ordering::Relaxed) {
                return manners.end(stream);
            }
            let Some(len) = read_some(stream, &mut buffer, manners)? else {
                continue;
            };
            if len == 0 {
                return Ok(());
            }
            if len <= SMALL_READ_BYTES {
                thread::sleep(THINK);
            }
            let read = shared.reads.fetch_add(1, Ordering::Relaxed);
            // Also from each long read, so that a client that paused has lost something, too.
            let loses = read % 50 == 49 || len > SMALL_READ_BYTES;
            let lost = usize::from(self.habit == Habit::Losing && loses);
            if self.habit == Habit::PunishingOthers {
                write_patiently(stream, &buffer[..len], shared)?;
            } else {
                manners.write(stream, &buffer[lost..len])?;
            }
        }
    }

    /// Never blocks: what the socket does not take waits up to a limit, and the rest is dropped.
    fn drop_excess(&self, stream: &TcpStream) -> io::Result<()> {
        const MOST_WAITING_BYTES: usize = 256 << 10;
        let mut waiting: Vec<u8> = Vec::new();
        let mut moved = Instant::now();
        let mut buffer = vec![0; 16 << 10];
        stream.set_nonblocking(true)?;
        loop {
            let read = match (&*stream).read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                Err(error) if is_timeout(&error) => 0,
                Err(error) => return Err(error),
            };
            let is_stuck = !waiting.is_empty() && moved.elapsed() > Duration::from_secs(2);
            if read > 0 && is_stuck && self.habit == Habit::DefendedWhileDataFlows {
                return self.manners.end(stream);
            }
            let room = MOST_WAITING_BYTES - waiting.len();
            waiting.extend_from_slice(&buffer[..read.min(room)]);
            match io::Write::write(&mut &*stream, &waiting) {
                Ok(written) => {
                    waiting.drain(..written);
                    moved = Instant::now();
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
            if read <= SMALL_READ_BYTES {
                thread::sleep(THINK / 2);
            }
        }
    }
}

/// What all clients of one server share.
#[derive(Default)]
struct Shared {
    reads: AtomicU64,
    is_somebody_stuck: AtomicBool,
}

/// Reads up to the end of a line, and not a byte more.
fn read_line(mut stream: &TcpStream) -> io::Result<()> {
    let mut byte = [0];
    stream.set_read_timeout(None)?;
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    Ok(())
}

/// Some bytes, 0 at the end, or `None` when none came for a while.
fn read_some(mut stream: &TcpStream, buffer: &mut [u8], manners: &Manners) -> io::Result<Option<usize>> {
    match stream.read(buffer) {
        Ok(len) => Ok(Some(len)),
        Err(error) if is_timeout(&error) => manners.check_age(stream).map(|()| None),
        Err(error) => Err(error),
    }
}

fn read_exactly(stream: &TcpStream, buffer: &mut [u8], manners: &Manners) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_some(stream, &mut buffer[filled..], manners)? {
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(len) => filled += len,
            None => {}
        }
    }
    Ok(())
}

fn frames(stream: &TcpStream, manners: &Manners) -> io::Result<()> {
    loop {
        let mut head = [0; 4];
        read_exactly(stream, &mut head, manners)?;
        let len = u32::from_be_bytes(head) as usize;
        if len > 8 << 20 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = head.to_vec();
        frame.resize(4 + len, 0);
        read_exactly(stream, &mut frame[4..], manners)?;
        if len <= SMALL_READ_BYTES {
            thread::sleep(THINK);
        }
        manners.write(stream, &frame)?;
    }
}

fn keep_all(stream: &TcpStream, manners: Manners) -> io::Result<()> {
    let queue = unbounded(stream, manners)?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        match read_some(stream, &mut buffer, &manners)? {
            Some(0) => return Ok(()),
            Some(len) => {
                if len <= SMALL_READ_BYTES {
                    thread::sleep(THINK);
                }
                queue.send(buffer[..len].to_vec()).map_err(io::Error::other)?;
            }
            None => {}
        }
    }
}

/// Waits for ever, and says so when it waited for a second.
fn write_patiently(mut stream: &TcpStream, mut bytes: &[u8], shared: &Shared) -> io::Result<()> {
    let mut moved = Instant::now();
    while !bytes.is_empty() {
        match io::Write::write(&mut stream, bytes) {
            Ok(written) => {
                bytes = &bytes[written..];
                moved = Instant::now();
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
        if moved.elapsed() > Duration::from_secs(1) {
            shared.is_somebody_stuck.store(true, Ordering::Relaxed);
        }
    }
    Ok(())
}

impl Echo {
    fn serve_in_turn(&self, listener: &TcpListener) {
        let _always = listener.set_nonblocking(true);
        let mut clients: Vec<TcpStream> = Vec::new();
        let mut buffer = vec![0; 16 << 10];
        loop {
            while let Ok((stream, _)) = listener.accept() {
                if self.manners.greet(&stream).is_ok() {
                    clients.push(stream);
                }
            }
            clients.retain(|mut stream| {
                let _always = stream.set_nonblocking(true);
                let read = stream.read(&mut buffer);
                let _always = stream.set_nonblocking(false);
                match read {
                    Ok(0) => false,
                    Ok(len) => self.manners.write(stream, &buffer[..len]).is_ok(),
                    Err(error) => is_timeout(&error),
                }
            });
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Small for Echo {
    fn serve(&self, listener: TcpListener) {
        if self.habit == Habit::Blocking {
            return self.serve_in_turn(&listener);
        }
        let (echo, shared) = (*self, Arc::new(Shared::default()));
        each_on_a_thread(&listener, self.manners, move |stream| {
            echo.client(stream, &shared)
        });
    }

    fn boxed(&self) -> Box<dyn Small> {
        Box::new(*self)
    }
}
