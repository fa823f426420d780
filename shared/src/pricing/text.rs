//! A price as JSON: an array of bands, each with its rates as decimal text, in
//! USD per million tokens (`request`: USD per request). Text, because a JSON
//! number becomes a binary fraction in most hands.

use serde_json::{Map, Value, json};

use super::price::{Band, Component, Price, ServiceTier};
use super::rate::{Rate, RateError};

/// A field that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldFault {
    /// Where: `[1].input`.
    pub field: String,
    /// What would be right.
    pub reason: String,
}

impl FieldFault {
    /// A fault of a field.
    pub fn new(field: impl Into<String>, reason: impl ToString) -> Self {
        Self { field: field.into(), reason: reason.to_string() }
    }
}

impl Component {
    /// Reads a rate of this component as people write it: USD per million
    /// tokens, or USD per request.
    ///
    /// # Errors
    /// See [`RateError`].
    pub fn rate(self, text: &str) -> Result<Rate, RateError> {
        if self == Self::Request { Rate::per_unit(text) } else { Rate::per_million(text) }
    }

    /// The inverse of [`Self::rate`].
    #[must_use]
    pub fn rate_text(self, rate: Rate) -> String {
        if self == Self::Request { rate.to_per_unit() } else { rate.to_per_million() }
    }
}

impl Price {
    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.bands().iter().map(band_json).collect()
    }

    /// The inverse of [`Self::to_json`]; fields that are not known are ignored.
    ///
    /// # Errors
    /// The first field that cannot be read.
    pub fn from_json(value: &Value) -> Result<Self, FieldFault> {
        let bands = value.as_array().ok_or_else(|| FieldFault::new("", "must be an array"))?;
        let mut price = Self::default();
        for (at, band) in bands.iter().enumerate() {
            let place = |name: &str| format!("[{at}].{name}");
            let band = band.as_object().ok_or_else(|| FieldFault::new(format!("[{at}]"), "must be an object"))?;
            let tier = match band.get("tier") {
                None => Some(ServiceTier::Standard),
                Some(tier) => tier.as_str().and_then(ServiceTier::parse),
            };
            let tier = tier.ok_or_else(|| FieldFault::new(place("tier"), "must be one of the tiers"))?;
            let above = match band.get("above") {
                None => 0,
                Some(above) => above.as_u64().ok_or_else(|| FieldFault::new(place("above"), "must be a count"))?,
            };
            for component in Component::ALL {
                let Some(text) = band.get(component.as_str()) else { continue };
                let field = || place(component.as_str());
                let text = text.as_str().ok_or_else(|| FieldFault::new(field(), "must be a decimal number as text"))?;
                let rate = component.rate(text).map_err(|error| FieldFault::new(field(), error))?;
                price.set(tier, above, component, rate);
            }
        }
        Ok(price)
    }
}

fn band_json(band: &Band) -> Value {
    let mut fields = Map::new();
    fields.insert("tier".into(), json!(band.tier.as_str()));
    fields.insert("above".into(), json!(band.above));
    for component in Component::ALL {
        if let Some(rate) = band.rates.get(component) {
            fields.insert(component.as_str().into(), component.rate_text(rate).into());
        }
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_round_trips() {
        let text = json!([
            {"tier": "standard", "above": 0, "input": "1.25", "cached_input": "0.125", "output": "10", "request": "0.005"},
            {"tier": "standard", "above": 200_000, "input": "2.5"},
            {"tier": "batch", "above": 0, "input": "0.625", "output_audio": "20"},
        ]);
        let price = Price::from_json(&text).expect("a price");
        assert_eq!(price.to_json(), text);
        assert_eq!(Price::from_json(&json!([])), Ok(Price::default()));
    }

    #[test]
    fn faults_name_their_field() {
        for (text, field) in [
            (json!({}), ""),
            (json!([1]), "[0]"),
            (json!([{"tier": "fast"}]), "[0].tier"),
            (json!([{}, {"above": -1}]), "[1].above"),
            (json!([{"input": 2.5}]), "[0].input"),
            (json!([{"input": "1"}, {"output": "-1"}]), "[1].output"),
        ] {
            assert_eq!(Price::from_json(&text).expect_err("a fault").field, field, "{text}");
        }
    }
}
