//! What a side can do beyond the messages that every `concord.v1` has: said in the first message
//! and used only where both sides said it.

use std::fmt;

/// One thing that a side can do. Its name is what stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// Keeps and gives attachments, named by their content.
    Blobs,
    /// Knows sessions, and leases on documents.
    Leases,
    /// Is told that somebody wants to hear nothing more of a document.
    Unsubscribe,
    /// Takes frames that are compressed.
    Zstd,
}

impl Feature {
    /// All that this version knows.
    pub const ALL: [Self; 4] = [Self::Blobs, Self::Leases, Self::Unsubscribe, Self::Zstd];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Leases => "leases",
            Self::Unsubscribe => "unsubscribe",
            Self::Zstd => "zstd",
        }
    }

    /// Reads the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.as_str() == text)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u8);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);

    /// This one too.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | feature.bit())
    }

    /// This one too, if it is on.
    #[must_use]
    pub const fn with_if(self, feature: Feature, is_on: bool) -> Self {
        if is_on { self.with(feature) } else { self }
    }

    /// Whether it is among them.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// Those that both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each, in the order of their names.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |feature| self.has(*feature))
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        features.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_and_a_place_of_its_own() {
        for feature in Feature::ALL {
            assert_eq!(Feature::parse(feature.as_str()), Some(feature));
            assert_eq!(Features::NONE.with(feature).iter().collect::<Vec<_>>(), [feature]);
        }
        assert_eq!(Feature::ALL.into_iter().collect::<Features>().iter().count(), 4);
        assert_eq!(Feature::parse("blob"), None);
        let both = Features::NONE.with(Feature::Zstd).and(Features::NONE.with(Feature::Blobs));
        assert!(both.is_empty());
    }
}
