//! Hostile virtqueues: see `hostile`. Fixed seeds; longer by `PROPTEST_CASES`.

mod hostile;

use proptest::collection::vec;
use proptest::prelude::*;

/// A descriptor whose fields are often sound.
fn descriptor() -> impl Strategy<Value = Vec<u8>> {
    (any::<[u8; 8]>(), prop_oneof![0_u32..1024, any::<u32>()], 0_u16..8, 0_u16..80).prop_map(
        |(address, length, flags, next)| {
            [&address[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
        },
    )
}

/// flags, idx, and heads.
fn ring() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![0_u16..70, any::<u16>()], vec(0_u16..70, 64))
        .prop_map(|(idx, heads)| [0, idx].into_iter().chain(heads).flat_map(u16::to_le_bytes).collect())
}

#[test]
fn a_sound_chain_reaches_the_device() {
    assert_eq!(hostile::written(77), 77);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_virtqueue_costs_a_bounded_amount_and_the_same_however_the_run_is_cut(
        first in any::<u8>(),
        descriptors in vec(descriptor(), 64),
        ring in ring(),
    ) {
        hostile::virtqueue(&[&[first][..], &descriptors.concat(), &ring].concat());
    }

    #[test]
    fn any_bytes_as_a_virtqueue_do_no_harm(bytes in vec(any::<u8>(), 0..1300)) {
        hostile::virtqueue(&bytes);
    }
}
