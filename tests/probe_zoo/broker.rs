//! Brokers: pass on to all subscribers what one connection publishes, and keep for each what it does
//! not take. They differ in what they keep, and for how long.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::patience::{Manners, each_on_a_thread};
use crate::row::Small;

/// How long a subscriber's thread waits before it looks whether its client is gone.
const IDLE: Duration = Duration::from_millis(200);

/// In which way what waits is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// A message exists once, however many it waits for.
    Once,
    /// A copy of it waits for each.
    Each,
}

/// Passes every line that begins with `PUB` on, without those four bytes, to all who said `SUB`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broker {
    pub(crate) keeping: Keeping,
    /// The oldest make room beyond so many bytes for one subscriber; without a limit none does.
    pub(crate) most_waiting_bytes: Option<usize>,
    /// A subscriber for which so many bytes wait never gets anything any more, and stays.
    pub(crate) forgets_from_bytes: Option<usize>,
    pub(crate) manners: Manners,
}

impl Broker {
    pub(crate) const fn new(keeping: Keeping, manners: Manners) -> Self {
        Self {
            keeping,
            most_waiting_bytes: None,
            forgets_from_bytes: None,
            manners,
        }
    }
}

/// What waits for one subscriber.
#[derive(Default)]
struct Waiting {
    lines: VecDeque<Arc<[u8]>>,
    bytes: usize,
    is_forgotten: bool,
    is_gone: bool,
}

#[derive(Default)]
struct Seat {
    waiting: Mutex<Waiting>,
    comes: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    fn client(&self, stream: &TcpStream, seats: &Mutex<Vec<Arc<Seat>>>) -> io::Result<()> {
        stream.set_read_timeout(None)?;
        for line in BufReader::new(stream).split(b'\n') {
            let line = line?;
            if line.starts_with(b"SUB") {
                self.manners.write(stream, b"+OK\r\n")?;
                let seat = Arc::new(Seat::default());
                lock(seats).push(Arc::clone(&seat));
                let written = self.pass_on(stream, &seat);
                *lock(&seat.waiting) = Waiting {
                    is_gone: true,
                    ..Waiting::default()
                };
                return written;
            }
            if let Some(message) = line.strip_prefix(b"PUB ") {
                let message: Arc<[u8]> = message.into();
                lock(seats).retain(|seat| self.queue(seat, &message));
            }
        }
        Ok(())
    }

    /// Whether the subscriber is still there.
    fn queue(&self, seat: &Seat, message: &Arc<[u8]>) -> bool {
        let mut waiting = lock(&seat.waiting);
        if waiting.is_gone || waiting.is_forgotten {
            return !waiting.is_gone;
        }
        waiting.bytes += message.len();
        waiting.lines.push_back(match self.keeping {
            Keeping::Once => Arc::clone(message),
            Keeping::Each => message.to_vec().into(),
        });
        while self.most_waiting_bytes.is_some_and(|most| waiting.bytes > most) {
            let oldest = waiting.lines.pop_front();
            waiting.bytes -= oldest.map_or(waiting.bytes, |oldest| oldest.len());
        }
        if self.forgets_from_bytes.is_some_and(|most| waiting.bytes > most) {
            *waiting = Waiting {
                is_forgotten: true,
                ..Waiting::default()
            };
        }
        drop(waiting);
        seat.comes.notify_one();
        true
    }

    fn pass_on(&self, stream: &TcpStream, seat: &Seat) -> io::Result<()> {
        loop {
            let line = {
                let waiting = lock(&seat.waiting);
                let waits = |waiting: &mut Waiting| waiting.lines.is_empty();
                let (mut waiting, _) = (seat.comes.wait_timeout_while(waiting, IDLE, waits))
                    .unwrap_or_else(PoisonError::into_inner);
                let line = waiting.lines.pop_front();
                waiting.bytes -= line.as_ref().map_or(0, |line| line.len());
                line
            };
            match line {
                Some(line) => self.manners.write(stream, &line)?,
                None if is_at_end(stream)? => return Ok(()),
                None => {}
            }
        }
    }
}

fn is_at_end(mut stream: &TcpStream) -> io::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    Ok(matches!(stream.read(&mut [0; 64]), Ok(0)))
}

impl Small for Broker {
    fn serve(&self, listener: TcpListener) {
        let (broker, seats) = (*self, Mutex::default());
        each_on_a_thread(&listener, self.manners, move |stream| {
            broker.client(stream, &seats)
        });
    }

    fn boxed(&self) -> Box<dyn Small> {
        Box::new(*self)
    }
}
