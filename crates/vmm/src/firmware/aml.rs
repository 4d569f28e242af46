//! ACPI's machine language, as far as a table of devices takes it. Source: ACPI 6.5, 20.2; resources: 6.4.

/// A scope with what is in it.
pub(super) fn scope(path: &str, content: &[Vec<u8>]) -> Vec<u8> {
    package(&[0x10], &[path.as_bytes(), &content.concat()].concat())
}

/// A device with its named objects. A name has four characters.
pub(super) fn device(name: &str, content: &[Vec<u8>]) -> Vec<u8> {
    package(&[0x5b, 0x82], &[name.as_bytes(), &content.concat()].concat())
}

/// A method of so many arguments that does no more than give one of them back.
pub(super) fn method_that_returns(name: &str, arguments: u8, argument: u8) -> Vec<u8> {
    const RETURN: u8 = 0xa4;
    const ARG0: u8 = 0x68;
    package(&[0x14], &[name.as_bytes(), &[arguments, RETURN, ARG0 + argument]].concat())
}

/// A named object.
pub(super) fn name(name: &str, object: &[u8]) -> Vec<u8> {
    [&[0x08], name.as_bytes(), object].concat()
}

pub(super) fn string(text: &str) -> Vec<u8> {
    [&[0x0d], text.as_bytes(), &[0]].concat()
}

/// In as few bytes as it takes.
pub(super) fn integer(value: u32) -> Vec<u8> {
    let [low, high, ..] = value.to_le_bytes();
    match value {
        0 | 1 => vec![low],
        2..=0xff => vec![0x0a, low],
        0x100..=0xffff => vec![0x0b, low, high],
        _ => [&[0x0c][..], &value.to_le_bytes()].concat(),
    }
}

/// Resources: a buffer that ends with a tag, and a checksum that is not looked at.
pub(super) fn resources(resources: &[Vec<u8>]) -> Vec<u8> {
    let bytes = [resources.concat(), vec![0x79, 0]].concat();
    package(&[0x11], &[integer(bytes.len() as u32), bytes].concat())
}

/// A fixed range of memory that is read and written.
pub(super) fn memory(start: u32, size: u32) -> Vec<u8> {
    [&[0x86, 9, 0, 1][..], &start.to_le_bytes(), &size.to_le_bytes()].concat()
}

/// A level-sensitive interrupt, active high, of this device alone.
pub(super) fn interrupt(gsi: u32) -> Vec<u8> {
    const CONSUMER: u8 = 1;
    [&[0x89, 6, 0, CONSUMER, 1][..], &gsi.to_le_bytes()].concat()
}

/// The opcode, the length with the length's own bytes, and the content: less than 2^20 bytes.
fn package(opcode: &[u8], content: &[u8]) -> Vec<u8> {
    let length = content.len() as u32;
    let nibble = |length: u32, more: u8| more << 6 | (length & 0xf) as u8;
    let length = match length {
        0..=0x3e => vec![(length + 1) as u8],
        0x3f..=0xffd => vec![nibble(length + 2, 1), ((length + 2) >> 4) as u8],
        _ => vec![nibble(length + 3, 2), ((length + 3) >> 4) as u8, ((length + 3) >> 12) as u8],
    };
    [opcode, &length, content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_take_as_few_bytes_as_they_can() {
        assert_eq!([integer(0), integer(1)], [[0], [1]]);
        assert_eq!([integer(2), integer(0xff)], [[0x0a, 2], [0x0a, 0xff]]);
        assert_eq!([integer(0x100), integer(0xffff)], [[0x0b, 0, 1], [0x0b, 0xff, 0xff]]);
        assert_eq!(integer(0x1_0000), [0x0c, 0, 0, 1, 0]);
    }

    /// ACPI 6.5, 20.2.4: the length counts its own bytes; with more than one the first has four bits of it.
    #[test]
    fn a_packages_length_counts_itself() {
        assert_eq!(package(&[0x10], &[0; 0x3e])[..2], [0x10, 0x3f]);
        assert_eq!(package(&[0x10], &[0; 0x3f])[..3], [0x10, 0x41, 0x04]);
        assert_eq!(package(&[0x10], &[0; 0xffd])[..3], [0x10, 0x4f, 0xff]);
        assert_eq!(package(&[0x10], &[0; 0xffe])[..4], [0x10, 0x81, 0x00, 0x01]);
    }

    #[test]
    fn a_device_has_its_name_its_id_and_its_resources() {
        let id = name("_HID", &string("LNRO0005"));
        let resources = name("_CRS", &resources(&[memory(0x0a00_0000, 0x200), interrupt(48)]));
        assert_eq!(
            device("VR00", &[id, resources]),
            [
                &[0x5b, 0x82, 0x34][..],
                b"VR00",
                b"\x08_HID\x0dLNRO0005\0",
                b"\x08_CRS\x11\x1a\x0a\x17",
                &[0x86, 9, 0, 1, 0, 0, 0, 0x0a, 0, 2, 0, 0],
                &[0x89, 6, 0, 1, 1, 48, 0, 0, 0],
                &[0x79, 0],
            ]
            .concat()
        );
    }
}
