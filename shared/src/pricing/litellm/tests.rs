//! The price file's schema, by small files.

use super::*;
use crate::pricing::{Spent, cost};

fn one(fields: &str) -> Price {
    let file = parse(format!(r#"{{"m": {{"litellm_provider": "openai", {fields}}}}}"#).as_bytes()).expect("readable");
    file.models.into_iter().next().expect("a model").price
}

fn micros(price: &Price, tier: ServiceTier, input: u64) -> Option<i64> {
    cost(&Spent { input, ..Spent::default() }, price, tier)
}

#[test]
fn names_of_fields_say_component_tier_and_length() {
    use Component as C;
    use ServiceTier as T;
    for (name, wanted) in [
        ("input_cost_per_token", Some((C::Input, T::Standard, 0))),
        ("output_cost_per_token_batches", Some((C::Output, T::Batch, 0))),
        ("input_cost_per_token_above_200k_tokens_priority", Some((C::Input, T::Priority, 200_000))),
        ("cache_read_input_token_cost_above_1m_tokens", Some((C::CachedInput, T::Standard, 1_000_000))),
        ("cache_creation_input_token_cost_above_1hr", Some((C::CacheWrite1h, T::Standard, 0))),
        ("cache_creation_input_token_cost_above_1hr_above_100k_tokens", Some((C::CacheWrite1h, T::Standard, 100_000))),
        ("output_cost_per_reasoning_token_flex", Some((C::Reasoning, T::Flex, 0))),
        ("input_cost_per_audio_token", Some((C::InputAudio, T::Standard, 0))),
        ("input_cost_per_request", Some((C::Request, T::Standard, 0))),
        ("cache_creation_input_token_cost_above_12hr", None),
        ("input_cost_per_token_ultrafast", None),
        ("input_cost_per_token_above_0k_tokens", None),
        ("input_cost_per_token_above_xk_tokens", None),
        ("input_cost_per_image", None),
        ("max_tokens", None),
    ] {
        let found = Field::parse(name).map(|field| (field.component, field.tier, field.above));
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn numbers_are_exact_and_thresholds_move_the_whole_request() {
    let price = one(r#""input_cost_per_token": 1.25e-06, "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "input_cost_per_token_batches": 6.25e-07, "output_cost_per_token": 1e-05, "max_tokens": "many""#);
    assert_eq!(micros(&price, ServiceTier::Standard, 200_000), Some(250_000));
    assert_eq!(micros(&price, ServiceTier::Standard, 200_001), Some(500_003));
    assert_eq!(micros(&price, ServiceTier::Batch, 1000), Some(625));
}

#[test]
fn ranges_hold_above_their_beginning() {
    let price = one(r#""tiered_pricing": [{"range": [0, 32000.0], "input_cost_per_token": 1e-06},
        {"range": [32000.0, 128000.0], "input_cost_per_token": 2e-06}]"#);
    for (input, wanted) in [(1, 1), (32_000, 32_000), (32_001, 64_002), (500_000, 1_000_000)] {
        assert_eq!(micros(&price, ServiceTier::Standard, input), Some(wanted), "{input}");
    }
}

#[test]
fn an_older_name_does_not_replace_the_newer() {
    let price = one(r#""input_cost_per_token": 1e-06, "input_cost_per_token_cache_hit": 3e-07"#);
    let cached = |price: &Price| price.own_rate(Component::CachedInput, ServiceTier::Standard, 0);
    assert_eq!(cached(&price), Rate::per_million("0.3").ok());
    let price = one(r#""input_cost_per_token": 1e-06, "input_cost_per_token_cache_hit": 3e-07,
        "cache_read_input_token_cost": 2e-07"#);
    assert_eq!(cached(&price), Rate::per_million("0.2").ok());
}

#[test]
fn only_models_of_our_vendors_that_are_billed_by_token_are_taken() {
    let file = parse(
        br#"{"sample_spec": {"input_cost_per_token": "how much"},
        "gemini/g": {"litellm_provider": "gemini", "input_cost_per_token": 1e-06},
        "azure_ai/x": {"litellm_provider": "azure_ai", "input_cost_per_token": 2e-06},
        "azure/X": {"litellm_provider": "azure", "input_cost_per_token": 1e-06},
        "deepseek-chat": {"litellm_provider": "deepseek", "input_cost_per_token": 2e-06},
        "deepseek/deepseek-chat": {"litellm_provider": "deepseek", "input_cost_per_token": 1e-06},
        "vertex_ai/claude@1": {"litellm_provider": "vertex_ai-anthropic_models", "input_cost_per_token": 1e-06},
        "free": {"litellm_provider": "ollama", "input_cost_per_token": 0.0, "output_cost_per_token": 0},
        "painter": {"litellm_provider": "openai", "input_cost_per_token": 0, "output_cost_per_image": 0.04},
        "silent": {"litellm_provider": "openai", "input_cost_per_token": null},
        "far": {"litellm_provider": "replicate", "input_cost_per_token": "nobody reads it"},
        "nobody's": {}}"#,
    )
    .expect("readable");
    let found: Vec<_> =
        file.models.iter().map(|m| (m.vendor, m.model.as_str(), micros(&m.price, ServiceTier::Standard, 1))).collect();
    assert_eq!(
        found,
        [
            ("azure-openai", "x", Some(1)),
            ("deepseek", "deepseek-chat", Some(1)),
            ("google", "g", Some(1)),
            ("ollama", "free", Some(0)),
            ("vertex", "claude@1", Some(1)),
        ]
    );
    assert_eq!((file.other_vendors, file.not_by_token), (2, 2));
}

#[test]
fn errors_name_the_model_and_the_field() {
    for (fields, field) in [
        (r#""input_cost_per_token": "1e-06""#, "m.input_cost_per_token"),
        (r#""output_cost_per_token": -1e-06"#, "m.output_cost_per_token"),
        (r#""cache_read_input_token_cost": [1]"#, "m.cache_read_input_token_cost"),
        (r#""tiered_pricing": {}"#, "m.tiered_pricing"),
        (r#""tiered_pricing": [{"input_cost_per_token": 1}]"#, "m.tiered_pricing[0].range"),
        (r#""tiered_pricing": [{"range": [1.5, 2]}]"#, "m.tiered_pricing[0].range"),
        (
            r#""tiered_pricing": [{"range": [0, 2], "input_cost_per_token": true}]"#,
            "m.tiered_pricing[0].input_cost_per_token",
        ),
    ] {
        let file = format!(r#"{{"m": {{"litellm_provider": "openai", {fields}}}}}"#);
        match parse(file.as_bytes()) {
            Err(PriceFileError::Fields(faults)) => assert_eq!(faults[0].field, field),
            other => panic!("{fields}: {other:?}"),
        }
    }
    let broken = parse(br#"{"m": 1, "n": {"litellm_provider": 1}}"#);
    let fields = |faults: Vec<FieldFault>| faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>();
    assert!(matches!(broken, Err(PriceFileError::Fields(f)) if fields(f.clone()) == ["m.", "n.litellm_provider"]));
    for text in ["", "[]", "{", "{} x", "7"] {
        assert!(matches!(parse(text.as_bytes()), Err(PriceFileError::NotJson { .. })), "{text:?}");
    }
}
