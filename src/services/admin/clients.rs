//! The list of clients as JSON.
//!
//! Owns the order and the names of the fields. A long list is written a few
//! clients at a time, so that nobody waits for it.

use std::cmp::Reverse;
use std::fmt::Write;
use std::time::Duration;

use crate::{ClientList, ClientReport, ShadowReport};

/// Clients in a list unless another number is asked for.
const LIMIT: usize = 100;

/// Most clients that may be asked for.
const MOST: usize = 1_000_000;

/// Clients, and pieces between them, that are written in one turn.
const PIECES_PER_TURN: usize = 250;

/// Which clients come first, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    sort: Sort,
    pub(super) limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Owed,
    Age,
    Over,
    Sent,
}

impl Order {
    /// Reads a query such as `sort=age&limit=10`.
    ///
    /// # Errors
    ///
    /// One sentence that says what would be right.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut order = Self {
            sort: Sort::Owed,
            limit: LIMIT,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "sort" => {
                    order.sort = match value {
                        "owed" => Sort::Owed,
                        "age" => Sort::Age,
                        "over" => Sort::Over,
                        "sent" => Sort::Sent,
                        _ => return Err("sort is one of owed, age, over and sent".to_owned()),
                    };
                }
                "limit" => {
                    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                    let limit = value.parse().ok().filter(|&limit| is_number && limit <= MOST);
                    order.limit = limit.ok_or_else(|| format!("limit is a number from 0 to {MOST}"))?;
                }
                _ => return Err("there are sort and limit, such as ?sort=age&limit=10".to_owned()),
            }
        }
        Ok(order)
    }

    fn key(self, client: &ClientReport) -> (u128, u64) {
        let over = client.over_limit.map_or(0, |over| over.as_nanos() + 1);
        let queued = client.queued_bytes as u64;
        match self.sort {
            Sort::Owed => (queued.into(), over.try_into().unwrap_or(u64::MAX)),
            Sort::Age => (client.age.as_nanos(), queued),
            Sort::Over => (over, queued),
            Sort::Sent => (client.sent_bytes.into(), queued),
        }
    }
}

/// A list that is being written.
pub(super) struct Writing {
    left: std::vec::IntoIter<Piece>,
    text: String,
}

/// What stands in the answer, in its order.
enum Piece {
    Text(String),
    Client(ClientReport),
}

impl Writing {
    pub(super) fn new(list: ClientList, order: Order) -> Self {
        let mut live = list.live;
        let total = live.len();
        live.sort_by_cached_key(|client| Reverse(order.key(client)));
        live.truncate(order.limit);
        let text = |text: &str| Piece::Text(text.to_owned());
        let mut pieces = vec![text("{\"live\":[")];
        pieces.extend(live.into_iter().map(Piece::Client));
        pieces.push(text("],\"gone\":{"));
        for (index, (word, gone)) in list.gone.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            pieces.push(Piece::Text(format!("{comma}\"{word}\":[")));
            pieces.extend(gone.into_iter().map(Piece::Client));
            pieces.push(text("]"));
        }
        let shadow = list
            .shadow
            .as_ref()
            .map_or_else(|| "null".to_owned(), write_shadow);
        pieces.push(Piece::Text(format!(
            "}},\"live_total\":{total},\"shadow\":{shadow}}}\n"
        )));
        Self {
            left: pieces.into_iter(),
            text: String::new(),
        }
    }

    /// Writes the next clients, and answers whether all are written.
    pub(super) fn write_on(&mut self) -> bool {
        for piece in self.left.by_ref().take(PIECES_PER_TURN) {
            match piece {
                Piece::Text(text) => self.text.push_str(&text),
                Piece::Client(client) => {
                    if !self.text.ends_with('[') {
                        self.text.push(',');
                    }
                    write_client(&mut self.text, &client);
                }
            }
        }
        self.left.len() == 0
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// What shadow mode recommends, and who it kept.
fn write_shadow(report: &ShadowReport) -> String {
    let mut text = format!(
        "{{\"recommendation\":\"{}\",\"sentence\":\"{}\",\"table\":\"{}\",\"kept\":[",
        report.options(),
        report.sentence(),
        report.table(),
    );
    for (index, kept) in report.endings.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}{{\"name\":\"{}\",\"address\":\"{}\",\"reason\":\"{}\",\"slow_seconds\":{:.3},\"ending\":\"{}\"}}",
            kept.name,
            kept.address,
            kept.reason,
            kept.slow_for.as_secs_f64(),
            kept.ending,
        );
    }
    text.push_str("]}");
    text
}

fn write_client(text: &mut String, client: &ClientReport) {
    let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
    let _ = write!(
        text,
        "{{\"name\":\"{}\",\"address\":\"{}\",\"age_seconds\":{},\"queued_bytes\":{},\"peak_bytes\":{},\
         \"over_limit_seconds\":{},\"received_bytes\":{},\"sent_bytes\":{},\"largest_window_bytes\":{},\
         \"state\":\"{}\",\"reason\":",
        client.name,
        client.address,
        seconds(client.age),
        client.queued_bytes,
        client.peak_bytes,
        client.over_limit.map_or(0.0, seconds),
        client.received_bytes,
        client.sent_bytes,
        client.largest_window_bytes,
        client.state,
    );
    let _ = match client.reason {
        Some(word) => write!(text, "\"{word}\"}}"),
        None => write!(text, "null}}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_whole_or_refused_with_what_is_right() {
        let order = |query| Order::parse(query);
        let default = order("").unwrap();
        assert_eq!((default.sort, default.limit), (Sort::Owed, 100));
        let both = order("sort=age&limit=7").unwrap();
        assert_eq!((both.sort, both.limit), (Sort::Age, 7));
        assert_eq!(order("limit=0").unwrap().limit, 0);
        for bad in [
            "sort=size",
            "sort",
            "sort=",
            "limit=",
            "limit=-1",
            "limit=+1",
            "limit=ten",
            "limit=1000001",
        ] {
            assert!(order(bad).is_err(), "{bad}");
        }
        assert!(order("order=age").unwrap_err().contains("?sort=age&limit=10"));
    }
}
