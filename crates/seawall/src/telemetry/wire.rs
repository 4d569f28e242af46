//! Fields without a JSON type.

use std::fmt;

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address or a syndrome: a string such as `"0x92000210"`, because JSON numbers lose bits past 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex(pub u64);

/// `0x92000210`.
impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
        digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).map(Self).ok_or_else(|| {
            D::Error::invalid_value(
                Unexpected::Str(&text),
                &"a hexadecimal number of at most 64 bits, as 0x92000210",
            )
        })
    }
}

/// A time in the form of RFC 3339: UTC, microseconds.
pub(super) mod rfc3339 {
    use std::time::{SystemTime, UNIX_EPOCH};

    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::de::{Error, Unexpected};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// `None` for a time before 1970, or a year of more than four digits, which RFC 3339 does not have.
    fn text(time: SystemTime) -> Option<String> {
        /// 10000-01-01, seconds since 1970.
        const END: u64 = 253_402_300_800;
        let since = time.duration_since(UNIX_EPOCH).ok().filter(|since| since.as_secs() < END)?;
        let time: DateTime<Utc> = DateTime::from_timestamp(since.as_secs() as i64, since.subsec_nanos())?;
        Some(time.to_rfc3339_opts(SecondsFormat::Micros, true))
    }

    #[allow(clippy::ref_option, reason = "serde's shape")]
    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.and_then(text).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        match DateTime::parse_from_rfc3339(&text) {
            Ok(time) => Ok(Some(time.into())),
            Err(_) => Err(D::Error::invalid_value(Unexpected::Str(&text), &"a time by RFC 3339")),
        }
    }
}
