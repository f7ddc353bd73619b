//! Every named limit: what is said when it is reached, and that nothing
//! happens below it.

use std::time::Duration;

use crate::client::{Client, Value, command};
use crate::start;
use crate::support::wait_until;

/// Says something that ends the connection, and answers the last words.
fn last_words(client: &mut Client, bytes: &[u8]) -> String {
    client.send_raw(bytes);
    let words = client.next().text().to_owned();
    assert!(client.ends_within(Duration::from_secs(20)), "after {words:?}");
    words
}

#[test]
fn a_command_has_at_most_1024_arguments() {
    let server = start(&[]);
    let mut client = Client::connect(server.address());
    let most: Vec<&str> = std::iter::once("SUBSCRIBE")
        .chain(std::iter::repeat_n("a", 1023))
        .collect();
    client.send(&most);
    (0..1023).for_each(|_| drop(client.next()));
    let words = last_words(&mut client, b"*1025\r\n");
    assert_eq!(
        words,
        "-ERR Protocol error: invalid multibulk length: 1025 arguments, the limit is 1024"
    );
}

#[test]
fn the_name_of_a_channel_has_at_most_64_kib() {
    let server = start(&[]);
    let mut client = Client::connect(server.address());
    let longest = "n".repeat(65_536);
    client.subscribe(&longest);
    let too_long = longest.clone() + "n";
    let refusal = "-ERR the name of a channel is longer than 65536 bytes";
    assert_eq!(client.ask(&["SUBSCRIBE", &too_long]).text(), refusal);
    let mut publisher = Client::connect(server.address());
    assert_eq!(publisher.ask(&["PUBLISH", &longest, "x"]), Value::Integer(1));
    assert_eq!(publisher.ask(&["PUBLISH", &too_long, "x"]).text(), refusal);
    assert_eq!(client.next().message(), Some((&*longest, "x")));
}

#[test]
fn an_inline_command_has_at_most_64_kib() {
    let server = start(&[]);
    let mut client = Client::connect(server.address());
    client.send_raw(format!("PING {}\r\n", "x".repeat(60_000)).as_bytes());
    assert_eq!(client.next().text().len(), 60_000);
    let words = last_words(&mut client, "x".repeat(65_537).as_bytes());
    assert_eq!(words, "-ERR Protocol error: too big inline request");
}

#[test]
fn a_client_has_at_most_100000_subscriptions_and_a_thousand_more_when_it_left_as_many() {
    let server = start(&[]);
    let mut client = Client::connect(server.address());
    let subscribe = |client: &mut Client, from: usize, word: &str| {
        let names: Vec<String> = (from..from + 1000).map(|number| number.to_string()).collect();
        let mut parts = vec![word];
        parts.extend(names.iter().map(String::as_str));
        client.send(&parts);
        (0..1000).map(|_| client.next()).last().unwrap()
    };
    for from in (0..100_000).step_by(1000) {
        subscribe(&mut client, from, "SUBSCRIBE");
    }
    assert_eq!(
        client.ask(&["PSUBSCRIBE", "*"]).text(),
        "-ERR a client may have 100000 subscriptions and has as many"
    );
    // Once more what it has is no new subscription.
    let Value::Array(parts) = client.ask(&["SUBSCRIBE", "7"]) else {
        panic!("no confirmation")
    };
    assert_eq!(parts[2], Value::Integer(100_000));
    subscribe(&mut client, 0, "UNSUBSCRIBE");
    let Value::Array(parts) = subscribe(&mut client, 200_000, "SUBSCRIBE") else {
        panic!("no confirmation")
    };
    assert_eq!(parts[2], Value::Integer(100_000));
}

/// What INFO says of this field.
fn info_bytes(client: &mut Client, field: &str) -> usize {
    let Value::Text(text) = client.ask(&["INFO", "memory"]) else {
        panic!("no text")
    };
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.strip_prefix(':'))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn all_clients_have_at_most_1000000_subscriptions_which_are_counted_and_given_back() {
    let server = start(&["--memory-budget", "1GiB"]);
    let mut watcher = Client::connect(server.address());
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(server.address())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        for from in (0..100_000).step_by(1000) {
            let names: Vec<String> = (from..from + 1000)
                .map(|name| format!("{number}:{name}"))
                .collect();
            let mut parts = vec!["SUBSCRIBE"];
            parts.extend(names.iter().map(String::as_str));
            client.send(&parts);
            (0..1000).for_each(|_| drop(client.next()));
        }
    }
    let full = server.resident_bytes();
    let counted = info_bytes(&mut watcher, "subscription_bytes");
    assert!(
        counted > full / 2 && counted < 2 * full,
        "{counted} bytes are counted, {full} are resident"
    );
    assert_eq!(watcher.ask(&["PUBLISH", "7:77777", "x"]), Value::Integer(1));
    assert_eq!(
        watcher.ask(&["SUBSCRIBE", "one more"]).text(),
        "-ERR all clients together may have 1000000 subscriptions and have as many"
    );
    drop(clients);
    wait_until("their memory is given back", || {
        server.resident_bytes() < full / 4
    });
    assert_eq!(info_bytes(&mut watcher, "subscription_bytes"), 0);
    watcher.subscribe("one more");
}

#[test]
fn names_of_channels_count_to_the_memory_budget() {
    let server = start(&["--memory-budget", "8MiB", "--hard-limit", "2MiB"]);
    let mut client = Client::connect(server.address());
    let refusal = "-ERR the memory budget has no room for another subscription";
    let name = |number: usize| format!("{number:065000}");
    let taken = (0..1000)
        .take_while(|&number| match client.ask(&["SUBSCRIBE", &name(number)]) {
            Value::Array(_) => true,
            refused => {
                assert_eq!(refused.text(), refusal);
                false
            }
        })
        .count();
    assert!(
        (100..130).contains(&taken),
        "{taken} names of 65,000 bytes fit into 8 MiB"
    );
    client.send(&["UNSUBSCRIBE", &name(0)]);
    drop(client.next());
    client.subscribe(&name(2000));
}

#[test]
fn a_transaction_has_at_most_10000_commands_and_is_discarded_beyond() {
    let server = start(&[]);
    let mut client = Client::connect(server.address());
    for (count, ends) in [(10_000, true), (10_001, false)] {
        assert_eq!(client.ask(&["MULTI"]).text(), "+OK");
        client.send_raw(&command(&["PING"]).repeat(count));
        let last = (0..count).map(|_| client.next()).last().unwrap();
        let executed = client.ask(&["EXEC"]);
        if ends {
            assert_eq!(last.text(), "+QUEUED");
            assert_eq!(executed, Value::Array(vec![Value::Text("+PONG".into()); count]));
        } else {
            assert_eq!(
                last.text(),
                "-ERR a transaction may have 10000 commands and has as many"
            );
            assert_eq!(
                executed.text(),
                "-EXECABORT Transaction discarded because of previous errors."
            );
        }
    }
}

#[test]
fn unfinished_input_and_transactions_count_to_the_memory_budget() {
    let half: &[u8] = &[b"*2\r\n$4\r\nECHO\r\n$1000000\r\n", &[b'x'; 900_000][..]].concat();
    let queued = [
        command(&["MULTI"]),
        command(&["ECHO", &"x".repeat(90_000)]).repeat(10),
    ]
    .concat();
    for (what, bytes) in [("unfinished input", half), ("a transaction", &queued)] {
        let server = start(&["--memory-budget", "3MiB"]);
        let mut clients: Vec<Client> = (0..2)
            .map(|_| {
                let mut client = Client::connect(server.address());
                client.send_raw(bytes);
                client
            })
            .collect();
        let mut watcher = Client::connect(server.address());
        let holds = |watcher: &mut Client, count: usize| {
            let list = watcher.ask(&["CLIENT", "LIST"]).text().to_owned();
            let held = list.lines().filter(|line| {
                let memory = line.split_once("tot-mem=").map(|(_, rest)| rest);
                let digits = memory.and_then(|rest| rest.split(' ').next());
                digits.and_then(|digits| digits.parse::<usize>().ok()).unwrap() > 800_000
            });
            held.count() == count
        };
        wait_until("two hold a megabyte", || holds(&mut watcher, 2));
        assert!(
            server.lines_with("memory budget, disconnecting").is_empty(),
            "{what} within it"
        );
        for _ in 0..2 {
            let mut client = Client::connect(server.address());
            client.send_raw(bytes);
            clients.push(client);
        }
        let line = server.wait_for_line("memory budget, disconnecting");
        assert!(line.contains("the most bytes x seconds of"), "{what}: {line}");
        assert_eq!(watcher.ask(&["PING"]).text(), "+PONG", "others go on");
    }
}

#[test]
fn a_header_alone_allocates_nothing() {
    let server = start(&[]);
    let before = server.resident_bytes();
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(server.address())).collect();
    for client in &mut clients {
        client.send_raw(b"*1024\r\n$1048576\r\n");
    }
    let mut watcher = Client::connect(server.address());
    wait_until("all have been read", || {
        let list = watcher.ask(&["CLIENT", "LIST"]);
        list.text().matches("qbuf=17 ").count() == 200
    });
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 20 << 20, "{grown} bytes for 200 headers");
}
