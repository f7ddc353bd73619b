//! The way to the upstream: names, addresses, refusals, and clients that do
//! not wait for it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use highwater::Limits;
use highwater::limits::HEAD_START;
use highwater::services::Tunnel;

use crate::support::server::{InThread, Server, number_before};
use crate::support::sockets::{Buffers, End, connect, half_close, ping, read_to_end, reset};
use crate::support::tunnel::{Pair, Silent, Upstream, echo_upstream, echo_upstream_at, port_of_its_own};
use crate::support::{holds_within, kernel, wait_until};

/// Long enough that a client would be served, had it not to wait.
const A_WHILE: Duration = Duration::from_millis(500);

type Found = io::Result<Vec<SocketAddr>>;

/// A tunnel to a name whose look-ups the test answers, one by one; the last
/// answer that is there is not given twice.
fn tunnel_to_a_name(connect_timeout: Duration) -> (InThread, Sender<Found>) {
    let (answers, questions): (Sender<Found>, Receiver<Found>) = channel();
    let questions = Mutex::new(questions);
    let look_up = move || match questions.lock().unwrap().recv() {
        Ok(found) => found,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let limits = Limits {
        connect_timeout,
        ..Limits::default()
    };
    let tunnel = InThread::serve(limits, move |remote| {
        Tunnel::to_name("service:1".into(), connect_timeout, remote, look_up)
    });
    (tunnel, answers)
}

/// An address of 127.0.0.1 where nobody listens.
fn deserted() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

fn is_refused(mut client: TcpStream) {
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
}

#[test]
fn a_client_without_an_upstream_is_reset_after_its_connect_timeout_and_one_line_says_why() {
    let to = deserted().to_string();
    let tunnel = Server::start("tunnel", &["--to", &to, "--connect-timeout", "400ms"]);
    is_refused(connect(tunnel.address()));
    let line = tunnel.wait_for_line("disconnecting");
    let expected = format!("cannot connect to {to}: {to}: Connection refused");
    assert!(line.contains("client ") && line.contains(&expected), "{line}");
    // At 0, 50, 150 and 350 ms, if the machine is not busy.
    assert!(line.contains(" times), after "), "{line}");
    assert!(number_before(&line, "s (") >= 0.4, "{line}");
}

#[test]
fn a_refused_client_waits_for_its_upstream_to_come_back_and_is_served() {
    let upstream = Upstream::listen();
    let address = upstream.address();
    drop(upstream);
    let to = address.to_string();
    let tunnel = Server::start("tunnel", &["--to", &to, "--connect-timeout", "1h"]);
    let idle = tunnel.descriptors();
    let client = connect(tunnel.address());
    wait_until("the client is in", || tunnel.descriptors() > idle);
    let upstream = Upstream::listen_on(address, Buffers::default());
    let server = upstream.accept();
    ping_pair(&mut Pair {
        client,
        upstream: server,
    });
    assert!(tunnel.lines_with("cannot connect").is_empty(), "{}", tunnel.log());
}

#[test]
fn a_client_that_leaves_while_its_upstream_refuses_costs_no_connection_later() {
    let upstream = Upstream::listen();
    let address = upstream.address();
    drop(upstream);
    let to = address.to_string();
    let tunnel = Server::start("tunnel", &["--to", &to, "--connect-timeout", "1h"]);
    let idle = tunnel.descriptors();
    let client = connect(tunnel.address());
    wait_until("the client is in", || tunnel.descriptors() > idle);
    reset(client);
    wait_until("the client is out", || tunnel.descriptors() == idle);
    let upstream = Upstream::listen_on(address, Buffers::default());
    // The longest pause between two retries is a second.
    let comes = upstream.accept_within(Duration::from_millis(1500));
    assert!(comes.is_none(), "somebody connected for nobody");
}

#[test]
fn a_hundred_refused_clients_are_one_line_and_the_upstream_that_comes_back_is_another() {
    let upstream = Upstream::listen();
    let address = upstream.address();
    let tunnel = upstream.tunnel(&["--connect-timeout", "200ms"]);
    let mut pair = Pair::through(&tunnel, &upstream);
    ping_pair(&mut pair);
    // The upstream dies, with its listener and its connections.
    drop(upstream);
    reset(pair.upstream);
    is_refused(pair.client);
    let clients: Vec<_> = (0..100).map(|_| connect(tunnel.address())).collect();
    for client in clients {
        is_refused(client);
    }
    assert_eq!(tunnel.wait_for_lines(1, "cannot connect").len(), 1);

    let upstream = Upstream::listen_on(address, Buffers::default());
    ping_pair(&mut Pair::through(&tunnel, &upstream));
    let line = tunnel.wait_for_line("again after");
    assert!(line.contains("100 clients were turned away"), "{line}");
    let summary = tunnel.stop();
    assert!(summary.contains("2 upstreams, "), "{summary}");
}

fn ping_pair(pair: &mut Pair) {
    pair.client.write_all(b"up").unwrap();
    let mut word = [0; 2];
    pair.upstream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"up");
    pair.upstream.write_all(b"down").unwrap();
    let mut word = [0; 4];
    pair.client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"down");
}

#[test]
fn an_upstream_that_does_not_answer_costs_each_client_the_connect_timeout_and_the_others_nothing() {
    let timeout = Duration::from_secs(1);
    let mut silent = Silent::listen();
    let to = silent.address.to_string();
    let tunnel = Server::start("tunnel", &["--to", &to, "--connect-timeout", "1s"]);
    let client = connect(tunnel.address());
    let (upstream, _) = silent.listener.accept().unwrap();
    let mut served = Pair {
        client,
        upstream: upstream.into(),
    };
    silent.fall_silent();

    let began = Instant::now();
    let waiting: Vec<_> = (0..20).map(|_| connect(tunnel.address())).collect();
    let mut longest = Duration::ZERO;
    while began.elapsed() < timeout / 2 {
        let asked = Instant::now();
        ping_pair(&mut served);
        longest = longest.max(asked.elapsed());
    }
    // A loop that waits for one connection would keep it for the timeout.
    assert!(longest < timeout * 3 / 4, "a ping took {longest:?}");
    for client in waiting {
        is_refused(client);
    }
    let waited = began.elapsed();
    // Time is counted from the turn that accepts, which may have begun before.
    assert!(
        waited >= timeout * 9 / 10 && waited < 5 * timeout,
        "all twenty took {waited:?}"
    );
    let line = tunnel.wait_for_line("cannot connect");
    assert!(line.contains("connect timed out after 1.000 s"), "{line}");
    ping_pair(&mut served);
}

#[test]
fn silent_and_refusing_addresses_cost_a_head_start_and_the_one_that_worked_comes_first_next_time() {
    let silent = Silent::new();
    let good = echo_upstream(Buffers::default());
    let timeout = Duration::from_secs(3600);
    let (tunnel, answers) = tunnel_to_a_name(timeout);
    answers
        .send(Ok(vec![deserted(), silent.address, good, deserted()]))
        .unwrap();
    let mut first = connect(tunnel.address());
    assert!(
        ping(&mut first, b"third time lucky") >= HEAD_START,
        "the silent one was not tried"
    );
    ping(&mut connect(tunnel.address()), b"at once");
    let counters = tunnel.stop();
    assert_eq!((counters.upstreams, counters.failed_connects), (2, 1));
    assert_eq!(
        counters.reset_clients, 1,
        "the silent one was tried for the first client alone, and given up"
    );
}

#[test]
fn of_two_families_either_may_be_silent() {
    let silent = Silent::new();
    let good_ipv6 = echo_upstream_at(Ipv6Addr::LOCALHOST.into());
    let good_ipv4 = echo_upstream(Buffers::default());
    let silent_ipv6 = Silent::at(Ipv6Addr::LOCALHOST.into());
    for addresses in [
        vec![silent.address, good_ipv6],
        vec![good_ipv6, silent.address],
        vec![silent_ipv6.address, good_ipv4],
        vec![silent.address, silent.address, silent_ipv6.address, good_ipv4],
    ] {
        let (tunnel, answers) = tunnel_to_a_name(Duration::from_secs(3600));
        answers.send(Ok(addresses)).unwrap();
        ping(&mut connect(tunnel.address()), b"who is there");
    }
}

#[test]
fn a_connect_without_an_answer_has_the_name_looked_up_and_takes_up_what_that_says() {
    let silent = Silent::new();
    let good = echo_upstream(Buffers::default());
    let (tunnel, answers) = tunnel_to_a_name(Duration::from_secs(3600));
    answers.send(Ok(vec![silent.address])).unwrap();
    answers.send(Ok(vec![good])).unwrap();
    ping(&mut connect(tunnel.address()), b"moved");
}

#[test]
fn a_client_is_not_read_before_its_upstream_is_there_and_loses_nothing_by_it() {
    let upstream = Upstream::listen();
    let (tunnel, answers) = tunnel_to_a_name(Duration::from_secs(30));
    let mut client = connect(tunnel.address());
    client.write_all(b"early").unwrap();
    half_close(&client);
    let ours = client.local_addr().unwrap();
    let unread = || kernel::connection(tunnel.address(), ours).map(|end| end.receive_queue_bytes);
    // The end counts as one byte more.
    let was_read = holds_within(A_WHILE, || unread().is_none_or(|bytes| bytes < 5));
    assert!(!was_read, "{:?} bytes are left unread", unread());
    answers.send(Ok(vec![upstream.address()])).unwrap();
    let mut server = upstream.accept();
    assert_eq!(read_to_end(&mut server), (b"early".to_vec(), End::Clean));
    server.write_all(b"late").unwrap();
    half_close(&server);
    assert_eq!(read_to_end(&mut client), (b"late".to_vec(), End::Clean));
}

#[test]
fn a_client_that_leaves_before_its_upstream_is_there_costs_no_connection() {
    let upstream = Upstream::listen();
    let (tunnel, answers) = tunnel_to_a_name(Duration::from_secs(30));
    let client = connect(tunnel.address());
    let ours = client.local_addr().unwrap();
    let inode = || kernel::connection(tunnel.address(), ours)?.inode;
    wait_until("the client is accepted", || inode().is_some());
    let theirs = inode().unwrap();
    reset(client);
    wait_until("the tunnel has let it go", || !kernel::has_socket_open(theirs));
    let patient = connect(tunnel.address());
    answers.send(Ok(vec![upstream.address()])).unwrap();
    upstream.accept();
    assert!(
        upstream.accept_within(A_WHILE).is_none(),
        "somebody connected for nobody"
    );
    drop(patient);
    assert_eq!(tunnel.stop().upstreams, 1);
}

#[test]
fn a_client_that_leaves_while_its_upstream_is_being_connected_ends_that_too() {
    let silent = Silent::new();
    let to = silent.address.to_string();
    let tunnel = Server::start("tunnel", &["--to", &to, "--connect-timeout", "1h"]);
    let idle = tunnel.descriptors();
    let client = connect(tunnel.address());
    wait_until("the upstream is being connected", || {
        tunnel.descriptors() == idle + 2
    });
    reset(client);
    wait_until("both sockets are closed", || tunnel.descriptors() == idle);
}

#[test]
fn a_name_that_does_not_resolve_is_said_and_turns_clients_away() {
    // RFC 6761 section 6.4 reserves this name to mean nothing.
    let options = ["--to", "nowhere.invalid:80", "--connect-timeout", "2s"];
    let tunnel = Server::start("tunnel", &options);
    is_refused(connect(tunnel.address()));
    let line = tunnel.wait_for_line("client ");
    assert!(line.contains("cannot connect to nowhere.invalid:80: "), "{line}");
    tunnel.stop();
}

#[test]
fn a_name_that_resolves_later_serves_those_who_wait_for_it() {
    let good = echo_upstream(Buffers::default());
    let (tunnel, answers) = tunnel_to_a_name(Duration::from_secs(3600));
    let mut client = connect(tunnel.address());
    answers.send(Err(io::ErrorKind::NotFound.into())).unwrap();
    answers.send(Ok(vec![good])).unwrap();
    ping(&mut client, b"now");
}

#[test]
fn a_look_up_that_takes_too_long_is_not_waited_for() {
    let timeout = Duration::from_millis(300);
    let (tunnel, answers) = tunnel_to_a_name(timeout);
    let began = Instant::now();
    is_refused(connect(tunnel.address()));
    assert!(began.elapsed() >= timeout);
    drop(answers);
}

#[test]
fn a_client_that_waits_for_a_name_is_reset_at_the_stop() {
    let (tunnel, answers) = tunnel_to_a_name(Duration::from_secs(30));
    let mut client = connect(tunnel.address());
    let ours = client.local_addr().unwrap();
    wait_until("the client is there", || {
        kernel::connection(tunnel.address(), ours).is_some()
    });
    tunnel.stop();
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
    drop(answers);
}

#[test]
fn a_refused_client_has_the_name_looked_up_and_is_served_where_the_service_is_now() {
    let good = echo_upstream(Buffers::default());
    let (tunnel, answers) = tunnel_to_a_name(Duration::from_secs(3600));
    answers.send(Ok(vec![deserted()])).unwrap();
    let mut client = connect(tunnel.address());
    answers.send(Ok(vec![good])).unwrap();
    ping(&mut client, b"moved");
}

/// A client of a tunnel that leads to itself is ended at once, though it may
/// wait for an hour, and few descriptors are ever in use.
fn leads_to_itself(host: &str, to: &str, client_goes_to: &str) {
    let port = port_of_its_own().to_string();
    let to = format!("{to}:{port}");
    let options = ["--host", host, "--to", &to, "--connect-timeout", "1h"];
    let tunnel = Server::start_on_port("tunnel", &port, &options);
    let idle = tunnel.descriptors();
    for _ in 0..3 {
        is_refused(connect(format!("{client_goes_to}:{port}").parse().unwrap()));
    }
    let line = tunnel.wait_for_line("disconnecting");
    assert!(line.contains("this tunnel itself"), "{line}");
    wait_until("nothing goes on", || tunnel.descriptors() == idle);
    let summary = tunnel.stop();
    let served = number_before(&summary, "clients served");
    assert!(served <= 4.0, "{summary}");
}

#[test]
fn a_tunnel_to_itself_is_noticed_however_its_address_is_spelled() {
    leads_to_itself("127.0.0.1", "127.0.0.1", "127.0.0.1");
    leads_to_itself("127.0.0.1", "localhost", "127.0.0.1");
    leads_to_itself("127.0.0.1", "0.0.0.0", "127.0.0.1");
    leads_to_itself("::", "127.0.0.1", "127.0.0.1");
    leads_to_itself("::", "[::1]", "[::1]");
    leads_to_itself("::", "[::]", "[::1]");
}

#[test]
fn a_tunnel_to_itself_by_another_of_its_addresses_is_noticed_at_the_first_client() {
    leads_to_itself("0.0.0.0", "127.0.0.2", "127.0.0.1");
    leads_to_itself("0.0.0.0", "127.0.0.1", "127.0.0.3");
    leads_to_itself("::", "[::1]", "127.0.0.1");
}

#[test]
fn the_same_port_at_another_address_is_no_loop() {
    let port = port_of_its_own();
    let upstream = Upstream::listen_on(([127, 0, 0, 2], port).into(), Buffers::default());
    let to = upstream.address().to_string();
    let tunnel = Server::start_on_port("tunnel", &port.to_string(), &["--to", &to]);
    ping_pair(&mut Pair::through(&tunnel, &upstream));
}

/// The header that the upstream of a tunnel with these options gets first.
fn header_with(options: &[&str], length: usize) -> (Vec<u8>, SocketAddr, SocketAddr) {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(options);
    let mut pair = Pair::through(&tunnel, &upstream);
    pair.client.write_all(b"hello").unwrap();
    let mut header = vec![0; length];
    pair.upstream.read_exact(&mut header).unwrap();
    let mut word = [0; 5];
    pair.upstream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello", "the stream follows the header");
    (header, pair.client.local_addr().unwrap(), tunnel.address())
}

#[test]
fn the_proxy_protocol_tells_the_upstream_the_clients_address_in_both_versions() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--proxy-protocol", "v1"]);
    let mut pair = Pair::through(&tunnel, &upstream);
    let client = pair.client.local_addr().unwrap();
    let line = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
        client.port(),
        tunnel.port()
    );
    let mut header = vec![0; line.len()];
    pair.upstream.read_exact(&mut header).unwrap();
    assert_eq!(String::from_utf8(header).unwrap(), line);

    let (header, client, tunnel) = header_with(&["--proxy-protocol", "v2"], 28);
    let header = ppp::v2::Header::try_from(header.as_slice()).unwrap();
    assert_eq!(header.addresses, ppp::v2::Addresses::from((client, tunnel)));
}

#[test]
fn without_being_asked_for_there_is_no_header() {
    let (nothing, _, _) = header_with(&[], 0);
    assert!(nothing.is_empty());
}
