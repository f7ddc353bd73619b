//! What is true of whole kinds of servers, each once: several findings follow from one fact.

use crate::row::{Row, Truth};

/// What most servers without a defence do.
pub(crate) const FOR_EVER: &str = "a client that takes nothing is kept for ever";

impl Row {
    /// A client that takes nothing stays connected for longer than any probe lasts.
    pub(crate) fn keeps_the_stalled(self, why: &'static str) -> Self {
        self.but("stalled-disconnected", Truth::Bad, why)
            .but("stalled-in-time", Truth::Bad, why)
            .but("nothing-left-in-kernel", Truth::Open, "nobody was closed")
    }

    /// The same, where no probe can see that.
    pub(crate) fn keeps_the_stalled_unseen(self, why: &'static str) -> Self {
        self.but("stalled-disconnected", Truth::BadUnseen, why)
            .but("stalled-in-time", Truth::BadUnseen, why)
    }

    /// It never owes a slow client so much that it could notice.
    pub(crate) fn fills_nobody(self, why: &'static str) -> Self {
        self.but("stalled-disconnected", Truth::Unknowable, why)
            .but("stalled-in-time", Truth::Unknowable, why)
            .but("memory-bounded", Truth::Open, "nothing waits for anybody")
    }

    /// It disconnects a client that takes nothing, but later than asked.
    pub(crate) fn goes_too_late(self, why: &'static str) -> Self {
        self.but(
            "stalled-disconnected",
            Truth::Open,
            "it goes, and whether the probe is still there is luck",
        )
        .but(
            "nothing-left-in-kernel",
            Truth::Open,
            "nobody need have been closed",
        )
        .but("stalled-in-time", Truth::Bad, why)
    }

    /// Nobody is served while it waits for a client that takes nothing.
    pub(crate) fn blocks_everybody(self) -> Self {
        self.groups(|groups| groups.paused = 0)
            .but(
                "healthy-unaffected",
                Truth::Bad,
                "nobody is served while one is waited for",
            )
            .but("healthy-served", Truth::Open, "served before, never again")
    }

    /// What waits for a client that takes nothing waits in memory, all of it.
    pub(crate) fn grows(self, why: &'static str) -> Self {
        self.but("memory-bounded", Truth::Bad, why)
    }

    /// A client is closed without a reset, with bytes on their way.
    pub(crate) fn leaves_bytes(self, why: &'static str) -> Self {
        self.but("nothing-left-in-kernel", Truth::Bad, why)
    }

    /// Healthy clients are harmed, and how that shows in their rate is a matter of luck.
    pub(crate) fn harms_the_healthy(self, why: &'static str, rate: &'static str) -> Self {
        self.but("healthy-served", Truth::Bad, why)
            .but("healthy-unaffected", Truth::Open, rate)
    }
}
