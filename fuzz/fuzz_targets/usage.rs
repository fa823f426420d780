//! Every reader of usage, chosen by the first byte: the same report however the
//! answer was cut, and no number that cannot be a count.

#![no_main]

use clawgate_fuzz::dialect::Protocol;
use clawgate_fuzz::wire::{Meter, Report};
use clawgate_fuzz::{choice, cut};
use libfuzzer_sys::fuzz_target;

/// Those whose arithmetic differs, and one that has none.
const VENDORS: [&str; 8] = ["openai", "xai", "mistral", "perplexity", "groq", "deepseek", "azure-openai", "custom"];
/// The largest count there is.
const LARGEST: u64 = 1 << 53;

fn report(protocol: Protocol, vendor: &str, pieces: &[&[u8]]) -> Report {
    let mut meter = Meter::new(protocol, vendor);
    for piece in pieces {
        meter.push(piece);
    }
    meter.finish()
}

fuzz_target!(|data: &[u8]| {
    let (which, rest) = choice(data);
    let (seed, answer) = choice(rest);
    let protocol = Protocol::ALL[usize::from(which) % Protocol::ALL.len()];
    let vendor = VENDORS[usize::from(seed) % VENDORS.len()];
    let whole = report(protocol, vendor, &[answer]);
    let cut = report(protocol, vendor, &cut(answer, seed));
    assert_eq!(cut, whole, "{protocol:?} of {vendor}");

    let usage = &whole.usage;
    let counts = [
        usage.input,
        usage.cached_input,
        usage.cache_write,
        usage.output,
        usage.reasoning,
        usage.total,
        usage.billing.cache_write_1h,
        usage.billing.input_audio,
        usage.billing.output_audio,
        usage.billing.billed_input,
        usage.billing.billed_output,
    ];
    // Sums of a few clamped counts, never a wrapped number.
    assert!(counts.iter().flatten().all(|count| *count <= 16 * LARGEST), "{usage:?}");
    // That a part is no more than the whole is not so: recorded vendors have said
    // more cached than prompt tokens, and more reasoning than output.
    if let Some(code) = &whole.error {
        let plain = code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        assert!(plain && code.len() <= 64, "{code:?}");
    }
    if protocol == Protocol::Opaque {
        assert_eq!(whole, Report::default());
    }
});
