use proptest::prelude::*;
use proptest::sample::Index as Place;

use super::*;

/// Makes a patch and checks all that is promised about it. `None` when the target is better sent whole.
fn patch(encoder: &mut Encoder, base: &[u8], target: &[u8], text: bool) -> Option<Vec<u8>> {
    let mut out = b"left over".to_vec();
    if !encoder.encode(base, target, text, &mut out) {
        assert_eq!(out, b"");
        return None;
    }
    assert!(out.len() < target.len());
    assert_eq!(apply(base, &out, target.len()).as_deref(), Ok(target));
    assert!(!text || std::str::from_utf8(&out).is_ok(), "{:?}", String::from_utf8_lossy(&out));
    Some(out)
}

fn patch_of(base: &str, target: &str) -> Option<String> {
    let patch = patch(&mut Encoder::default(), base.as_bytes(), target.as_bytes(), true)?;
    Some(String::from_utf8(patch).unwrap())
}

/// A payload such as an application sends: many numbers, and names that repeat.
fn market(seed: u64, rows: u64) -> String {
    let price = |row: u64| (row.wrapping_mul(7919).wrapping_add(seed.wrapping_mul(104_729))) % 9000 + 1000;
    let rows: Vec<String> = (0..rows)
        .map(|row| format!(r#"{{"symbol":"S{row:03}","price":{}.25,"volume":{}}}"#, price(row), 1_000_000 + row))
        .collect();
    format!(r#"{{"market":"test","rows":[{}]}}"#, rows.join(","))
}

#[test]
fn one_changed_value_makes_a_patch_of_two_copies() {
    let base = format!(r#"{{"n":1,"pad":"{}"}}"#, "abcdefgh".repeat(20));
    let target = base.replacen('1', "2", 1);
    let patch = patch_of(&base, &target).unwrap();
    assert!(patch.starts_with("2l\n5@0,1:22f@6,"), "{patch:?}");
}

#[test]
fn the_same_payload_makes_a_patch_of_one_copy() {
    let payload = market(1, 20);
    let patch = patch_of(&payload, &payload).unwrap();
    assert_eq!(patch.matches('@').count(), 1);
    assert!(patch.len() < 20);
}

#[test]
fn far_apart_changes_of_the_same_length_need_no_index() {
    let base = market(1, 40);
    let target = base.replace("S010", "X010").replace("S020", "X020").replace("S030", "X030");
    let mut encoder = Encoder::default();
    let patch = patch(&mut encoder, base.as_bytes(), target.as_bytes(), true).unwrap();
    assert!(patch.len() < 60, "{}", patch.len());
    assert!(encoder.index.is_forgotten());
}

#[test]
fn a_value_that_changes_in_every_row_costs_a_few_bytes_a_row() {
    let (base, target) = (market(1, 20), market(2, 20));
    let patch = patch_of(&base, &target).unwrap();
    assert!(patch.len() < 20 * 14 + 20, "{patch:?}");
}

#[test]
fn a_list_that_moves_on_by_one_row_costs_one_row() {
    let rows: Vec<String> =
        (0..30).map(|i| format!(r#"{{"id":{},"price":{},"side":"buy"}}"#, 100 + i, 500 + i * i)).collect();
    let (base, target) = (format!("[{}]", rows[1..].join(",")), format!("[{}]", rows[..29].join(",")));
    let patch = patch_of(&base, &target).unwrap();
    assert!(patch.len() < 80, "{patch:?}");
}

#[test]
fn what_moved_is_found_wherever_it_went() {
    let parts: Vec<String> = (1..=4).map(|seed| market(seed, 5)).collect();
    let base = parts.concat();
    let target = format!("{}, new, {}{}{}", parts[2], parts[0], parts[3], parts[1]);
    let patch = patch_of(&base, &target).unwrap();
    assert!(patch.len() < 80, "{patch:?}");
}

#[test]
fn what_is_taken_out_or_put_in_costs_little() {
    let base = market(1, 40);
    for target in [
        base.replace(r#"{"symbol":"S020","#, r#"{"symbol":"S020","note":"halted","#),
        base.replace(r#""price":"#, ""),
        format!("[{base}]"),
        base[..base.len() / 2].to_owned(),
        base.repeat(3),
    ] {
        let patch = patch_of(&base, &target).unwrap();
        assert!(patch.len() * 3 < target.len(), "{} of {}", patch.len(), target.len());
    }
}

#[test]
fn a_target_that_shares_too_little_is_sent_whole() {
    for (base, target) in [
        ("", ""),
        ("", "a"),
        ("a", ""),
        ("a", "a"),
        (r#"{"n":1}"#, r#"{"n":2}"#),
        (r#"{"n":2}"#, r#"{"other":"words that share nothing"}"#),
        ("", &"a".repeat(100)),
        (&"a".repeat(100), &"b".repeat(100)),
        (&market(1, 20), &"xyzw".repeat(300)),
    ] {
        assert_eq!(patch_of(base, target), None, "{base:?} {target:?}");
    }
}

/// The reference makes a patch here whose JSON form, with the newline escaped, is as long as the whole target's.
#[test]
fn lengths_are_compared_without_the_escapes_of_json() {
    let patch = patch_of("1234567890123456999999999", "123456789012345677777777").unwrap();
    assert_eq!(patch.len(), "123456789012345677777777".len() - 1);
}

#[test]
fn a_change_inside_a_character_is_sent_as_the_whole_character() {
    // é and è differ in their last byte, é and ũ in the first, the emojis somewhere in between.
    for (before, after) in
        [("é", "è"), ("é", "\u{169}"), ("😀", "😁"), ("😀", "🤀"), ("é", "e"), ("e", "é"), ("日", "曥")]
    {
        let around = |inner: &str| format!(r#"{{"pad":"{}{inner}{}"}}"#, "abcdefgh".repeat(10), "hgfedcba".repeat(10));
        let patch = patch_of(&around(before), &around(after)).unwrap();
        assert!(patch.contains(&format!(":{after}")), "{patch:?}");
        assert_eq!(patch.matches('@').count(), 2, "{patch:?}");
    }
}

#[test]
fn a_target_that_is_not_utf8_has_a_patch_only_for_those_who_take_bytes() {
    let base = [market(1, 5).as_bytes(), b"\xff"].concat();
    let target = [market(2, 5).as_bytes(), b"\xff"].concat();
    let mut encoder = Encoder::default();
    assert!(patch(&mut encoder, &base, &target, true).is_none());
    assert!(patch(&mut encoder, &base, &target, false).is_some());
}

#[test]
fn payloads_that_repeat_themselves_are_no_trap() {
    let one_letter = "a".repeat(1 << 16);
    let changed = format!("{}b{}", &one_letter[..30_000], &one_letter[30_001..]);
    assert!(patch_of(&one_letter, &changed).unwrap().len() < 30);
    let two_letters = "ab".repeat(1 << 15);
    assert_eq!(patch_of(&two_letters, &"ba c".repeat(100)), None);
    assert!(patch_of(&two_letters, &format!("x{}", "ba".repeat(1 << 15))).unwrap().len() < 60);
}

#[test]
fn memory_stays_bounded_and_a_large_base_is_still_of_use() {
    let base: Vec<u8> = (0_u32..1 << 20).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let target = [&base[3 << 20..], &base[..3 << 20]].concat();
    let mut encoder = Encoder::default();
    assert!(patch(&mut encoder, &base, &target, false).unwrap().len() < 1000);
    assert!(encoder.index.memory_bytes() <= 320 << 10, "{}", encoder.index.memory_bytes());
    assert!(patch(&mut encoder, &base[..100], &target[..50], false).is_none(), "nothing is left of the base before");
}

// === for any payloads ===

/// What may happen to a payload between two publications.
#[derive(Debug, Clone)]
enum Edit {
    Insert(Place, Vec<char>),
    Remove(Place, usize),
    Replace(Place, char),
    Repeat(Place, usize),
    Move(Place, usize, Place),
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = any::<Place>;
    prop_oneof![
        1 => (place(), prop::collection::vec(letter(), 0..20)).prop_map(|(at, letters)| Edit::Insert(at, letters)),
        1 => (place(), 0_usize..40).prop_map(|(at, count)| Edit::Remove(at, count)),
        3 => (place(), letter()).prop_map(|(at, letter)| Edit::Replace(at, letter)),
        1 => (place(), 0_usize..60).prop_map(|(at, count)| Edit::Repeat(at, count)),
        1 => (place(), 0_usize..60, place()).prop_map(|(at, count, to)| Edit::Move(at, count, to)),
    ]
}

/// Few of them, of one to four bytes, with first and last bytes in common.
fn letter() -> impl Strategy<Value = char> {
    prop_oneof![4 => prop::sample::select(vec!['a', 'b', '"', '1']), 1 => prop::sample::select(vec!['é', 'è', '日', '旦', '😀', '😁'])]
}

fn edited(mut text: Vec<char>, edits: &[Edit]) -> Vec<char> {
    for edit in edits {
        let length = text.len();
        let run = |at: &Place, count: usize| {
            let at = at.index(length + 1);
            at..(at + count).min(length)
        };
        match edit {
            Edit::Insert(at, letters) => drop(text.splice(run(at, 0), letters.iter().copied())),
            Edit::Remove(at, count) => drop(text.drain(run(at, *count))),
            Edit::Replace(at, letter) => drop(text.splice(run(at, 1), [*letter])),
            Edit::Repeat(at, count) => text.extend_from_within(run(at, *count)),
            Edit::Move(at, count, to) => {
                let moved: Vec<char> = text.drain(run(at, *count)).collect();
                let to = to.index(text.len() + 1);
                drop(text.splice(to..to, moved));
            }
        }
    }
    text
}

/// A base and a target; both UTF-8 or both any bytes.
fn pair() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let bytes = |text: Vec<char>| text.into_iter().collect::<String>().into_bytes();
    let texts = |length| prop::collection::vec(letter(), length);
    prop_oneof![
        4 => (texts(0..600), prop::collection::vec(edit(), 0..12))
            .prop_map(move |(base, edits)| (bytes(base.clone()), bytes(edited(base, &edits)))),
        1 => (texts(0..40), texts(0..40)).prop_map(move |(base, target)| (bytes(base), bytes(target))),
        1 => (texts(0..400), texts(0..400)).prop_map(move |(base, target)| (bytes(base), bytes(target))),
        1 => (prop::collection::vec(any::<u8>(), 0..300), prop::collection::vec(any::<u8>(), 0..300)),
        1 => (prop::collection::vec(0x7f_u8..0x81, 0..300), prop::collection::vec(0x7f_u8..0x81, 0..300)),
        1 => (any::<(u64, u64)>(), 0_u64..60, 0_u64..60).prop_map(|((one, other), rows, more)| {
            (market(one, rows).into_bytes(), market(other, more).into_bytes())
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]

    #[test]
    fn every_patch_makes_its_target(pairs in prop::collection::vec((pair(), any::<bool>()), 1..4)) {
        let mut encoder = Encoder::default();
        for ((base, target), text) in pairs {
            patch(&mut encoder, &base, &target, text);
        }
    }

    #[test]
    fn a_damaged_patch_is_an_error_and_never_a_wrong_payload_of_another_size(
        (base, target) in pair(), place: Place, damage in 1_u8.., cut: Place,
    ) {
        let Some(mut patch) = patch(&mut Encoder::default(), &base, &target, false) else { return Ok(()) };
        prop_assert!(apply(&base, &patch[..cut.index(patch.len())], target.len()).is_err());
        let place = place.index(patch.len());
        patch[place] ^= damage;
        if let Ok(result) = apply(&base, &patch, 2 * target.len()) {
            prop_assert!(result.len() <= 2 * target.len());
        }
    }
}
