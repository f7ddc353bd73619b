//! Edges that the kernel announced and that are not yet used up.
//!
//! Owns one byte per client. An edge is announced once; after that it is a
//! fact that stands until a read or write was refused or came back short,
//! also while the client is paused or has used up its turn. Refuses to close
//! anybody: what an event says about an end or an error is only a reason to
//! read or write again.

/// What one event of the kernel said about one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Something can be read, be it data, the end or an error.
    pub readable: bool,
    /// Something can be written, or an error can be fetched by writing.
    pub writable: bool,
    /// The peer has ended, an error is pending, or urgent data is there, at
    /// whose mark a read stops: a short read does not mean that there is
    /// nothing left to read.
    pub read_again: bool,
}

/// The edges of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Readiness {
    readable: bool,
    writable: bool,
    read_again: bool,
}

impl Readiness {
    /// A new socket is tried before anything was announced.
    pub(in crate::engine) const NEW: Self = Self {
        readable: false,
        writable: true,
        read_again: false,
    };

    /// A socket that is still connecting: nothing can be done before its edge.
    pub(in crate::engine) const CONNECTING: Self = Self {
        readable: false,
        writable: false,
        read_again: false,
    };

    pub(in crate::engine) fn announce(&mut self, event: Event) {
        self.readable |= event.readable;
        self.writable |= event.writable;
        self.read_again |= event.read_again;
    }

    pub(in crate::engine) const fn is_readable(self) -> bool {
        self.readable
    }

    pub(in crate::engine) const fn is_writable(self) -> bool {
        self.writable
    }

    /// Whether an end or an error was announced and not yet read.
    pub(in crate::engine) const fn may_have_ended(self) -> bool {
        self.read_again
    }

    /// A read brought fewer bytes than it asked for: the socket is empty,
    /// unless something stands behind the data of which no further edge will
    /// tell: an end, an error, or the mark of urgent data.
    pub(in crate::engine) const fn read_short(&mut self) {
        if !self.read_again {
            self.readable = false;
        }
    }

    /// A read was refused: nothing is left, and the next edge will tell.
    pub(in crate::engine) const fn read_refused(&mut self) {
        self.readable = false;
        self.read_again = false;
    }

    /// A read brought the end: nothing will ever be read again.
    pub(in crate::engine) const fn read_ended(&mut self) {
        self.readable = false;
        self.read_again = false;
    }

    /// A write was refused or came back short: the next edge will tell.
    pub(in crate::engine) const fn write_refused(&mut self) {
        self.writable = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READABLE: Event = Event {
        readable: true,
        writable: false,
        read_again: false,
    };

    #[test]
    fn an_edge_stands_until_it_is_used_up() {
        let mut readiness = Readiness::NEW;
        readiness.announce(READABLE);
        readiness.announce(Event::default());
        assert!(
            readiness.is_readable(),
            "a later event does not take an edge back"
        );
        readiness.read_short();
        assert!(!readiness.is_readable());
    }

    #[test]
    fn after_an_announced_end_a_short_read_is_not_the_last() {
        let mut readiness = Readiness::NEW;
        readiness.announce(Event {
            read_again: true,
            ..READABLE
        });
        readiness.read_short();
        assert!(readiness.is_readable());
        readiness.read_refused();
        assert!(!readiness.is_readable());
    }

    #[test]
    fn a_new_socket_is_written_to_at_once_but_a_connecting_one_is_not() {
        assert!(Readiness::NEW.is_writable() && !Readiness::NEW.is_readable());
        assert!(!Readiness::CONNECTING.is_writable());
        let mut readiness = Readiness::NEW;
        readiness.write_refused();
        assert!(!readiness.is_writable());
    }
}
