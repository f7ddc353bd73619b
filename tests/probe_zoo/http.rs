//! Web servers: one small server with many habits.

use std::borrow::Cow;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::patience::{LOOK, Manners, THINK, close_in_order, each_on_a_thread, is_timeout};
use crate::row::Small;

/// A request as the one who answers it sees it.
pub(crate) struct Request<'a> {
    pub(crate) head: &'a str,
    /// Counted over all connections, from 0.
    pub(crate) total: u64,
    /// The connection is closed after this answer, and the answer announces that.
    pub(crate) announce_close: bool,
}

/// What a server answers.
pub(crate) struct Answer {
    pub(crate) head: Vec<u8>,
    /// Pages that never change are shared by all clients, so that none costs memory.
    pub(crate) body: Cow<'static, [u8]>,
    /// The end of the connection is part of the answer.
    pub(crate) then_close: bool,
}

impl Answer {
    fn write(&self, stream: &TcpStream, manners: &Manners) -> io::Result<()> {
        manners.write(stream, &self.head)?;
        manners.write(stream, &self.body)
    }
}

/// A head and as many bytes of body as it says.
pub(crate) fn with_length(request: &Request<'_>, head: &str, body: impl Into<Cow<'static, [u8]>>) -> Answer {
    let body = body.into();
    let close = if request.announce_close {
        "Connection: close\r\n"
    } else {
        ""
    };
    let head = format!("{head}\r\n{close}Content-Length: {}\r\n\r\n", body.len());
    let is_wanted = !request.head.starts_with("HEAD ");
    raw(&head, if is_wanted { body } else { Cow::Borrowed(&[][..]) })
}

/// Anything else, to the byte.
pub(crate) fn raw(head: &str, body: impl Into<Cow<'static, [u8]>>) -> Answer {
    Answer {
        head: head.as_bytes().to_vec(),
        body: body.into(),
        then_close: false,
    }
}

/// The largest page, in bytes.
const LARGEST_PAGE_BYTES: usize = 64 << 20;

/// So many bytes of a page that never changes.
pub(crate) fn plain(bytes: usize) -> &'static [u8] {
    static PAGE: OnceLock<Vec<u8>> = OnceLock::new();
    let page = PAGE.get_or_init(|| {
        b"what everybody reads, again and again, and never differently; \r\n".repeat(LARGEST_PAGE_BYTES / 64)
    });
    &page[..bytes]
}

/// The same page with the number of the request in it.
pub(crate) fn counted(request: &Request<'_>, bytes: usize) -> Vec<u8> {
    let mut page = plain(bytes).to_vec();
    page[..10].copy_from_slice(format!("{:010}", request.total).as_bytes());
    page
}

/// When connections are closed in order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ends {
    pub(crate) after_requests: Option<u64>,
    pub(crate) announced: bool,
    /// No request for so long.
    pub(crate) when_idle: Option<Duration>,
    /// So old, between two answers.
    pub(crate) at_age: Option<Duration>,
    /// So old, whatever it does.
    pub(crate) cut_at_age: Option<Duration>,
}

#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) answer: fn(&Request<'_>) -> Answer,
    pub(crate) manners: Manners,
    pub(crate) ends: Ends,
    pub(crate) think: Duration,
    /// For the first request of all.
    pub(crate) first_think: Duration,
    /// Answers wait in memory, without a limit.
    pub(crate) is_unbounded: bool,
    /// One client after the other, on one thread.
    pub(crate) is_single: bool,
}

impl Site {
    pub(crate) fn new(answer: fn(&Request<'_>) -> Answer, manners: Manners) -> Self {
        Self {
            answer,
            manners,
            ends: Ends::default(),
            think: THINK,
            first_think: THINK,
            is_unbounded: false,
            is_single: false,
        }
    }

    fn client(&self, stream: &TcpStream, total: &AtomicU64) -> io::Result<()> {
        let born = Instant::now();
        let manners = Manners {
            cut_at: self.ends.cut_at_age.map(|age| born + age),
            ..self.manners
        };
        let queue = self
            .is_unbounded
            .then(|| unbounded(stream, manners))
            .transpose()?;
        let mut input = Vec::new();
        for number in 0.. {
            let Some(head) = next_head(stream, &mut input, self.ends.when_idle, &manners)? else {
                return close_in_order(stream);
            };
            let total = total.fetch_add(1, Ordering::Relaxed);
            thread::sleep(if total == 0 { self.first_think } else { self.think });
            let is_last = self.ends.after_requests == Some(number + 1)
                || self.ends.at_age.is_some_and(|age| born.elapsed() > age);
            let answer = (self.answer)(&Request {
                head: &head,
                total,
                announce_close: is_last && self.ends.announced,
            });
            match &queue {
                Some(queue) => queue
                    .send([&answer.head, &answer.body[..]].concat())
                    .map_err(io::Error::other)?,
                None => answer.write(stream, &manners)?,
            }
            if is_last || answer.then_close {
                return close_in_order(stream);
            }
        }
        Ok(())
    }
}

/// A queue in memory that takes everything at once, and what writes it out.
pub(crate) fn unbounded(
    stream: &TcpStream,
    manners: Manners,
) -> io::Result<std::sync::mpsc::Sender<Vec<u8>>> {
    let (queue, waiting) = std::sync::mpsc::channel::<Vec<u8>>();
    let stream = stream.try_clone()?;
    thread::spawn(move || {
        waiting
            .iter()
            .try_for_each(|bytes| manners.write(&stream, &bytes))
    });
    Ok(queue)
}

impl Small for Site {
    fn serve(&self, listener: TcpListener) {
        plain(0);
        let total = Arc::new(AtomicU64::new(0));
        if self.is_single {
            return self.serve_in_turn(&listener);
        }
        let site = self.clone();
        each_on_a_thread(&listener, self.manners, move |stream| site.client(stream, &total));
    }

    fn boxed(&self) -> Box<dyn Small> {
        Box::new(self.clone())
    }
}

impl Site {
    /// All clients on one thread, which blocks when one of them takes nothing.
    fn serve_in_turn(&self, listener: &TcpListener) {
        let _always = listener.set_nonblocking(true);
        let mut clients: Vec<(TcpStream, Vec<u8>)> = Vec::new();
        let mut total = 0;
        loop {
            while let Ok((stream, _)) = listener.accept() {
                if stream.set_nonblocking(false).is_ok() && self.manners.greet(&stream).is_ok() {
                    clients.push((stream, Vec::new()));
                }
            }
            clients.retain_mut(|(stream, input)| {
                match next_head(stream, input, Some(Duration::from_millis(1)), &self.manners) {
                    Ok(Some(head)) => {
                        total += 1;
                        let answer = (self.answer)(&Request {
                            head: &head,
                            total,
                            announce_close: false,
                        });
                        answer.write(stream, &self.manners).is_ok()
                    }
                    Ok(None) => !is_at_end(stream),
                    Err(_) => false,
                }
            });
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn is_at_end(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Ok(0))
}

/// The next request's head; `None` at the end, or when none came for so long.
fn next_head(
    mut stream: &TcpStream,
    input: &mut Vec<u8>,
    idle: Option<Duration>,
    manners: &Manners,
) -> io::Result<Option<String>> {
    let begun = Instant::now();
    stream.set_read_timeout(Some(idle.map_or(LOOK, |idle| idle.min(LOOK))))?;
    loop {
        if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = input.drain(..end + 4).collect();
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        let mut buffer = [0; 8192];
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(len) => input.extend_from_slice(&buffer[..len]),
            Err(error) if is_timeout(&error) => {
                manners.check_age(stream)?;
                if idle.is_some_and(|idle| begun.elapsed() >= idle) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
}
