//! How long a server waits for a client that takes nothing, and how it ends it.
//!
//! What most small servers of the zoo share: a send buffer so small that what the
//! server sees is what the client does, and the time that an answer takes to make.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

/// The time that a server takes for a small message. It sets the rate of the healthy clients, so
/// that what else runs on the machine does not.
pub(crate) const THINK: Duration = Duration::from_millis(10);
/// How often a blocked write looks at the clock.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// Most servers here hold no more than this in the kernel for a client, in bytes.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// How long an orderly close waits for the client's own.
const LINGER: Duration = Duration::from_secs(2);

/// When a server gives up a client that it writes to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    Endless,
    /// No byte was taken for so long.
    Stuck(Duration),
    /// One answer as a whole took so long.
    Whole(Duration),
}

/// How it ends a client that it gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Farewell {
    Reset,
    /// A plain close: what the kernel holds stays there.
    Fin,
    /// A half close; then it reads until the client closes, or for two seconds.
    HalfClose,
    /// A half close; then it reads until the client closes, however long that takes.
    HalfCloseOnly,
}

/// A client as its server treats it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    pub(crate) patience: Patience,
    pub(crate) farewell: Farewell,
    /// None: as much as the kernel likes.
    pub(crate) send_buffer: Option<usize>,
    /// This connection is ended at that moment, whatever it does.
    pub(crate) cut_at: Option<Instant>,
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Manners {
    /// Resets a client that takes nothing for two seconds.
    pub(crate) const DEFENDED: Self = Self {
        patience: Patience::Stuck(seconds(2)),
        farewell: Farewell::Reset,
        send_buffer: Some(SEND_BUFFER_BYTES),
        cut_at: None,
    };
    /// Waits for ever.
    pub(crate) const DEFENCELESS: Self = Self {
        patience: Patience::Endless,
        ..Self::DEFENDED
    };

    pub(crate) const fn after(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    pub(crate) const fn by(self, farewell: Farewell) -> Self {
        Self { farewell, ..self }
    }

    pub(crate) const fn with_kernel_buffers(self) -> Self {
        Self {
            send_buffer: None,
            ..self
        }
    }

    pub(crate) fn greet(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(LOOK))?;
        if let Some(bytes) = self.send_buffer {
            SockRef::from(stream).set_send_buffer_size(bytes)?;
        }
        Ok(())
    }

    /// Writes everything, or ends the client.
    pub(crate) fn write(&self, mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        let begun = Instant::now();
        let mut moved = begun;
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    moved = Instant::now();
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
            self.check_age(stream)?;
            let is_over = match self.patience {
                Patience::Endless => false,
                Patience::Stuck(time) => moved.elapsed() > time,
                Patience::Whole(time) => begun.elapsed() > time,
            };
            if is_over && !bytes.is_empty() {
                self.end(stream)?;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Ends a connection whose time is over.
    pub(crate) fn check_age(&self, stream: &TcpStream) -> io::Result<()> {
        if self.cut_at.is_some_and(|cut_at| Instant::now() >= cut_at) {
            self.end(stream)?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// What becomes of the connection once its last handle is dropped.
    pub(crate) fn end(&self, stream: &TcpStream) -> io::Result<()> {
        match self.farewell {
            Farewell::Reset => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            Farewell::Fin => Ok(()),
            Farewell::HalfClose => close_in_order(stream),
            Farewell::HalfCloseOnly => {
                stream.shutdown(Shutdown::Write)?;
                stream.set_read_timeout(None)?;
                io::copy(&mut &*stream, &mut io::sink()).map(drop)
            }
        }
    }
}

pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// Says that nothing more comes, and waits for the client to say the same, so that what is on its
/// way is not destroyed.
pub(crate) fn close_in_order(mut stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(LINGER))?;
    let until = Instant::now() + LINGER;
    let mut rest = [0; 4096];
    while Instant::now() < until && stream.read(&mut rest)? > 0 {}
    Ok(())
}

/// Gives every client a thread of its own.
pub(crate) fn each_on_a_thread(
    listener: &TcpListener,
    manners: Manners,
    client: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static,
) {
    let client = Arc::new(client);
    for stream in listener.incoming().map_while(Result::ok) {
        let client = Arc::clone(&client);
        thread::spawn(move || {
            if manners.greet(&stream).is_ok() {
                // A client that is gone ends its thread and nothing else.
                let _gone = client(&stream);
            }
        });
    }
}
