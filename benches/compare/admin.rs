//! What operators cost: a server with `--admin` that nobody asks, one that is
//! scraped once a second, and one whose clients are all listed.
//!
//! Instructions and time on the core do not swing with the machine as rates do.
//! Waits do: each is compared with a moment before it in which nobody asked.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::clock::now;
use crate::figure::{Figure, MESSAGE, SETTLE, nowhere};
use crate::generator::Generator;
use crate::instructions::{INSTRUCTIONS, instructions};
use crate::peer::Workshop;
use crate::server::Server;
use crate::statistics::median;

const PEER: &str = "highwater";
const ADMIN: &[&str] = &["--admin", "127.0.0.1:0"];

/// Clients whose messages are counted.
const COUNTED_CLIENTS: usize = 50;
const SCRAPES: u32 = 50;
const LISTS: usize = 12;
/// Longest time without an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time in which a neighbour's longest wait is looked for.
const WINDOW: Duration = Duration::from_millis(400);

/// All figures, with so many clients in a scrape and so many in a list.
pub(crate) fn run(workshop: &Workshop, scraped: usize, listed: usize) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for (label, arguments) in [("without --admin", &[][..]), ("with --admin", ADMIN)] {
        let each = instructions(workshop, PEER, arguments, COUNTED_CLIENTS)?;
        figures.push(Figure::new(label, INSTRUCTIONS, format!("{each:.1}")));
    }
    figures.push(scrapes(workshop, scraped)?);
    figures.extend(lists(workshop, listed)?);
    Ok(figures)
}

/// A server that operators may ask, with its clients, and where they ask.
fn watched(workshop: &Workshop, clients: usize) -> Result<(Server, Generator, SocketAddr), String> {
    let server = workshop.start(PEER, ADMIN, nowhere(), "admin")?;
    let mut generator = Generator::start(MESSAGE, clients)?;
    generator.open(server.address())?;
    thread::sleep(SETTLE);
    let output = fs::read_to_string(server.output()).unwrap_or_default();
    let rest = output.split_once("admin page on http://").map(|(_, rest)| rest);
    let admin = rest.and_then(|rest| rest.split('/').next()?.parse().ok());
    let admin = admin.ok_or("the server does not say where operators may ask")?;
    Ok((server, generator, admin))
}

/// Asks, and waits for the whole answer. Answers its length in bytes.
fn ask(admin: SocketAddr, target: &str) -> Result<usize, String> {
    let asked = || {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.len())
    };
    asked().map_err(|error: std::io::Error| format!("GET {target}: {error}"))
}

fn scrapes(workshop: &Workshop, clients: usize) -> Result<Figure, String> {
    let (server, _generator, admin) = watched(workshop, clients)?;
    ask(admin, "/metrics")?;
    let before = server.time_on_core();
    for _ in 0..SCRAPES {
        ask(admin, "/metrics")?;
    }
    let each = (server.time_on_core() - before) / SCRAPES;
    let percent = each.as_secs_f64() * 100.0;
    let label = format!("{clients} clients");
    Ok(Figure::new(
        &label,
        "core taken by a scrape a second",
        format!("{percent:.2} %"),
    ))
}

/// How much longer a neighbour waits at most while all clients are listed.
fn lists(workshop: &Workshop, clients: usize) -> Result<[Figure; 2], String> {
    let (server, _generator, admin) = watched(workshop, clients)?;
    let target = format!("/clients?limit={clients}");
    let mut neighbour = Neighbour::connect(server.address())?;
    let (mut quiet, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..LISTS {
        quiet.push(neighbour.longest_wait_ms(|| false)?);
        thread::scope(|scope| {
            let asking = scope.spawn(|| ask(admin, &target));
            asked.push(neighbour.longest_wait_ms(|| !asking.is_finished())?);
            let length = asking.join().map_err(|_| "an operator has panicked")??;
            match length > 100 * clients {
                true => Ok(()),
                false => Err(format!("a list of {length} bytes has not all clients")),
            }
        })?;
    }
    let label = format!("{clients} clients");
    let figure = |what, waits| Figure::new(&label, what, format!("{:.2} ms", median(waits)));
    Ok([
        figure("longest wait, nobody asks", quiet),
        figure("longest wait beside a list of all", asked),
    ])
}

/// A client whose waits are looked at.
struct Neighbour {
    stream: TcpStream,
}

impl Neighbour {
    fn connect(server: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(server).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        Ok(Self { stream })
    }

    /// The longest wait for an answer, in a window and for as long as something
    /// goes on.
    fn longest_wait_ms(&mut self, goes_on: impl Fn() -> bool) -> Result<f64, String> {
        let (begun, mut longest) = (now(), Duration::ZERO);
        while begun.elapsed() < WINDOW || goes_on() {
            let (sent, mut back) = (now(), [0; 64]);
            let answered = self
                .stream
                .write_all(&back)
                .and_then(|()| self.stream.read_exact(&mut back));
            answered.map_err(|error| format!("a neighbour was not answered: {error}"))?;
            longest = longest.max(sent.elapsed());
        }
        Ok(longest.as_secs_f64() * 1000.0)
    }
}
