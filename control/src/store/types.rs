//! The closed sets that columns hold, and the shapes inside JSON columns.

use serde::{Deserialize, Serialize};

/// An enum that is one text per variant, in the database, on the wire and in
/// messages.
macro_rules! text_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident => $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text form.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The inverse of [`Self::as_str`].
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }

            /// From a column.
            ///
            /// # Errors
            /// The column holds none of the texts.
            pub fn from_column(column: &str, text: &str) -> Result<Self, $crate::store::StoreError> {
                Self::parse(text).ok_or_else(|| $crate::store::StoreError::corrupt(column, "not one of the known values"))
            }
        }
    };
}

pub(crate) use text_enum;

text_enum!(
    /// Whether a tenant's bots are served.
    TenantState {
        /// They are.
        Active => "active",
        /// Every request is refused with `tenant_suspended`.
        Suspended => "suspended",
    }
);

text_enum!(
    /// What is known of a provider key's health.
    KeyStatus {
        /// Usable.
        Active => "active",
        /// A vendor answered 401; a probe decides.
        Suspect => "suspect",
        /// The vendor refuses it.
        Invalid => "invalid",
        /// The account has no credit.
        Exhausted => "exhausted",
        /// Rate limited for a while.
        Cooling => "cooling",
    }
);

text_enum!(
    /// How a bot's requests are spread over its keys.
    KeyStrategy {
        /// Each key in turn, exactly.
        RoundRobin => "round_robin",
        /// In proportion to the weights.
        Weighted => "weighted",
        /// The highest priority that is usable.
        Priority => "priority",
        /// The one with the fewest requests in flight.
        LeastUsed => "least_used",
        /// The same key for the same conversation.
        Sticky => "sticky",
    }
);

text_enum!(
    /// What happens upstream when a client hangs up.
    OnDisconnect {
        /// The vendor's request is cancelled.
        Cancel => "cancel",
        /// The answer is read to its end so that usage is exact.
        Drain => "drain",
    }
);

text_enum!(
    /// Whether usage may be asked for on a bot's behalf.
    BotIncludeUsage {
        /// As the vendor and the key say.
        Auto => "auto",
        /// Its bodies are left alone.
        Never => "never",
    }
);

text_enum!(
    /// What runs a bot.
    Adapter {
        /// Somebody else; we only give it a token.
        External => "external",
        /// A container with OpenClaw.
        Openclaw => "openclaw",
        /// Any other container.
        Generic => "generic",
    }
);

text_enum!(
    /// What a bot may do beyond inference.
    BotPermission {
        /// Files, batches, stored responses, caches and fine-tunes.
        AccountResources => "account_resources",
    }
);

text_enum!(
    /// What we want of a bot's container.
    DesiredState {
        /// Up.
        Running => "running",
        /// Down.
        Stopped => "stopped",
    }
);

text_enum!(
    /// What is observed of a bot.
    BotStatus {
        /// Not run by us; its token works.
        External => "external",
        /// To run, and no runner has taken it up.
        Pending => "pending",
        /// Its image is fetched.
        Pulling => "pulling",
        /// Its container is made.
        Creating => "creating",
        /// Its container runs; its probe has not answered yet.
        Starting => "starting",
        /// Up, and healthy where it has a probe.
        Running => "running",
        /// Up; its probe fails.
        Unhealthy => "unhealthy",
        /// On its way down.
        Stopping => "stopping",
        /// Nothing runs, as wanted.
        Stopped => "stopped",
        /// Nothing runs, because the bot is suspended.
        Suspended => "suspended",
        /// It ended by itself; it is started again after a while.
        Crashed => "crashed",
        /// It cannot be run as it is.
        Error => "error",
    }
);

text_enum!(
    /// Why a bot that we run is as it is.
    Reason {
        /// Nothing to explain.
        None => "",
        /// No runner has the labels and the room.
        NoRunner => "no_runner",
        /// Its runner is not connected.
        RunnerAway => "runner_away",
        /// Its runner has no engine at hand.
        EngineUnavailable => "engine_unavailable",
        /// There is no such image, or it may not be fetched.
        ImageNotFound => "image_not_found",
        /// Fetching the image failed.
        PullFailed => "pull_failed",
        /// Fetching the image takes too long.
        PullTimeout => "pull_timeout",
        /// The container could not be made.
        CreateFailed => "create_failed",
        /// The engine could not start it.
        StartFailed => "start_failed",
        /// It did not become healthy in time.
        StartTimeout => "start_timeout",
        /// It ended by itself.
        Exited => "exited",
        /// It took more memory than it may.
        OutOfMemory => "out_of_memory",
        /// It refused its configuration (exit code 78).
        ConfigRefused => "config_refused",
        /// Its probe fails.
        ProbeFailed => "probe_failed",
        /// The runner does not run what was asked for.
        SpecRefused => "spec_refused",
        /// Something of that name is there and is not ours.
        NotOurs => "not_ours",
        /// The runner failed in another way.
        RunnerFailed => "runner_failed",
        /// Somebody killed it.
        Killed => "killed",
    }
);

text_enum!(
    /// What a bot's probe says.
    Health {
        /// It has none, or it was not asked yet.
        Unknown => "unknown",
        /// Well.
        Healthy => "healthy",
        /// Not.
        Unhealthy => "unhealthy",
    }
);

text_enum!(
    /// Whether a runner can run anything.
    RunnerState {
        /// It has not said yet.
        Unknown => "unknown",
        /// It can.
        Ready => "ready",
        /// Its engine does not answer.
        EngineUnavailable => "engine_unavailable",
    }
);

text_enum!(
    /// What a line of a bot's history is.
    BotEventKind {
        /// Its status changed.
        Status => "status",
        /// The engine said something.
        Engine => "engine",
    }
);

text_enum!(
    /// What a quota limits.
    QuotaScope {
        /// One bot.
        Bot => "bot",
        /// The bots of a project.
        Project => "project",
        /// The bots of a tenant.
        Tenant => "tenant",
        /// What is sent with one provider key.
        ProviderKey => "provider_key",
    }
);

text_enum!(
    /// What a quota counts.
    QuotaMetric {
        /// Input and output tokens.
        TotalTokens => "total_tokens",
        /// Prompt tokens.
        InputTokens => "input_tokens",
        /// Generated tokens.
        OutputTokens => "output_tokens",
        /// Requests.
        Requests => "requests",
        /// Micro-USD.
        CostMicros => "cost_micros",
    }
);

text_enum!(
    /// Over which calendar window a quota counts, in the tenant's time zone.
    QuotaWindow {
        /// A minute.
        Minute => "minute",
        /// An hour.
        Hour => "hour",
        /// A day.
        Day => "day",
        /// A week from Monday.
        Week => "week",
        /// A month.
        Month => "month",
        /// For ever.
        Total => "total",
    }
);

text_enum!(
    /// What a full quota does.
    QuotaAction {
        /// Refuses.
        Block => "block",
        /// Only tells.
        Notify => "notify",
    }
);

text_enum!(
    /// How much is held before a request is sent.
    QuotaMode {
        /// An upper bound: the limit is never passed.
        Strict => "strict",
        /// An estimate.
        Estimate => "estimate",
    }
);

text_enum!(
    /// What happens to a stream that passes its limit.
    QuotaOnExceed {
        /// Only the next request is refused.
        Refuse => "refuse",
        /// The stream is ended.
        Cut => "cut",
    }
);

text_enum!(
    /// What a node does while the control plane is away.
    QuotaOnOutage {
        /// Refuses when its lease is used up.
        Deny => "deny",
        /// Gives a stated allowance once.
        Allowance => "allowance",
        /// Lets pass.
        Allow => "allow",
    }
);

/// One quota as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaSpec {
    /// What is counted.
    pub metric: QuotaMetric,
    /// Over which window.
    pub window: QuotaWindow,
    /// Units of the metric per window.
    pub limit: u64,
    /// Glob; `None`: every model.
    pub model: Option<String>,
    /// When the limit is reached.
    pub action: QuotaAction,
    /// Share of the limit, in percent, at which people are warned.
    pub warn_pct: u8,
    /// How much is held.
    pub mode: QuotaMode,
    /// For running streams.
    pub on_exceed: QuotaOnExceed,
    /// Without the control plane.
    pub on_outage: QuotaOnOutage,
}

/// An amount of one quota in one window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// `quo_…`
    pub quota_id: String,
    /// Unix microseconds.
    pub window_start: i64,
    /// Units of the quota's metric.
    pub amount: i64,
}

/// What a bot's container may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// MiB.
    pub memory_mb: Option<u32>,
    /// Processes and threads.
    pub pids_limit: Option<u32>,
    /// MiB.
    pub disk_mb: Option<u32>,
}

/// What a provider key says about its vendor account. None of it is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOptions {
    /// Region of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// API version to ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Organization header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// How the key is presented, when not as its vendor says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// `inject | never | passthrough`, when not as its vendor says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_usage: Option<String>,
}
