//! Edges that the kernel announced and that are not used up.
//!
//! Owns the edges of one client. An edge is announced once, and stands until a
//! read or write is refused or comes back short; also while the client is
//! paused or has used up its budget. Refuses to close a client: an event about
//! a FIN or an error is only a reason to read or write again.

/// One event of the kernel for one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Something can be read: data, the FIN, or an error.
    pub readable: bool,
    /// Something can be written, or a write returns an error.
    pub writable: bool,
    /// A short read does not mean that the socket is empty: the FIN, an error,
    /// or the mark of urgent data may follow.
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
    /// A new socket may be written to before any event.
    pub(in crate::engine) const NEW: Self = Self {
        readable: false,
        writable: true,
        read_again: false,
    };

    /// A socket that is connecting can do nothing before its first event.
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

    /// Whether a FIN or an error was announced and not read.
    pub(in crate::engine) const fn may_have_ended(self) -> bool {
        self.read_again
    }

    /// A read brought fewer bytes than it asked for. The socket is empty,
    /// unless a FIN, an error, or the mark of urgent data follows, for which no
    /// further edge comes.
    pub(in crate::engine) const fn read_short(&mut self) {
        if !self.read_again {
            self.readable = false;
        }
    }

    /// A read was refused: the socket is empty until the next edge.
    pub(in crate::engine) const fn read_refused(&mut self) {
        self.readable = false;
        self.read_again = false;
    }

    /// A read brought the FIN: nothing more will come.
    pub(in crate::engine) const fn read_ended(&mut self) {
        self.readable = false;
        self.read_again = false;
    }

    /// A write was refused or came back short: the socket is full until the
    /// next edge.
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
