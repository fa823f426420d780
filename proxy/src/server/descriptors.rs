//! How many files and sockets this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Sockets per connection of a bot: its own and one to a vendor.
const PER_CONNECTION: u64 = 2;
/// Spool, listeners, logs, control plane, runtime.
const BESIDES: u64 = 256;

/// Raises the limit on open descriptors as far as this process may: shells and
/// container engines start programs with a low one, often 1,024. Says so when
/// it stays too low for `max_connections`.
pub fn raise_descriptor_limit(max_connections: usize) {
    let kind = Resource::RLIMIT_NOFILE;
    let limits = getrlimit(kind).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(kind, hard, hard)?;
        }
        Ok(hard)
    });
    let wanted = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_mul(PER_CONNECTION) + BESIDES;
    match limits {
        Ok(limit) if limit < wanted => {
            tracing::warn!(limit, wanted, "too few open files for max-connections; raise the hard limit (ulimit -Hn)");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit on open files cannot be raised"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_this_process_may_have_it() {
        raise_descriptor_limit(1);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
        assert_eq!(soft, hard);
    }
}
