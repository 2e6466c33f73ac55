//! CBOR written into a buffer that cannot fail: definite lengths, each as short as it may be.

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// A buffer of CBOR.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn finish(self) -> bytes::Bytes {
        self.0.into()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// One item, as it was written before.
    pub(super) fn encoded(&mut self, item: &[u8]) {
        self.0.extend_from_slice(item);
    }

    pub(super) fn map(&mut self, entries: usize) {
        self.head(MAP, entries as u64);
    }

    pub(super) fn array(&mut self, items: usize) {
        self.head(ARRAY, items as u64);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.0.push(if value { 0xf5 } else { 0xf4 });
    }

    pub(super) fn float(&mut self, value: f64) {
        self.0.push(0xfb);
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// A whole number: an integer up to 32 bits, a float beyond, because cbor-x makes a `BigInt`
    /// of every integer of 64 bits.
    pub(super) fn count(&mut self, value: u64) {
        if u32::try_from(value).is_ok() {
            self.head(UNSIGNED, value);
        } else {
            #[expect(clippy::cast_precision_loss, reason = "as JavaScript numbers")]
            self.float(value as f64);
        }
    }

    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        let [.., a, b, c, d] = value.to_be_bytes();
        match value {
            0..=23 => self.0.push(major | d),
            24..=0xff => self.0.extend_from_slice(&[major | 0x18, d]),
            0x100..=0xffff => self.0.extend_from_slice(&[major | 0x19, c, d]),
            0x1_0000..=0xffff_ffff => self.0.extend_from_slice(&[major | 0x1a, a, b, c, d]),
            _ => {
                self.0.push(major | 0x1b);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
    }
}
