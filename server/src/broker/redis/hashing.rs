//! Which Redis holds a channel: the three hash functions of Centrifugo's Redis format, byte for byte.
//!
//! All of them take the plain channel name, never the key made of it.

/// FNV-1a, 64 bits, over the bytes of a text.
pub fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Place of a channel in a list of `count` servers: the jump hash of Lamping and Veach, seeded with [`fnv1a64`].
///
/// When a server is added to the end of the list, only the channels that move to it change their place. With one server,
/// or none, it is 0.
pub fn consistent_index(text: &str, count: usize) -> usize {
    let mut key = fnv1a64(text);
    let mut chosen = 0;
    let mut next = 0_u64;
    while next < count as u64 {
        chosen = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // In doubles, as every implementation of it has to: an exact division would choose other servers.
        let ratio = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((chosen + 1) as f64 * ratio) as u64;
    }
    usize::try_from(chosen).expect("less than count, which is a usize")
}

/// Slot of a key in a Redis Cluster: CRC16 (XMODEM) of the text between the first `{` and the next `}` when that is not
/// empty, else of the whole key; modulo 16384.
pub fn slot(key: &str) -> u16 {
    let hashed = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(key);
    crc16(hashed.as_bytes()) & 0x3fff
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 },
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::broker::redis::vectors;

    #[test]
    fn every_recorded_channel_has_its_hash_its_servers_and_its_slot() {
        let vectors = vectors::file("sharding.json");
        let channels = vectors["channels"].as_array().unwrap();
        assert!(channels.len() >= 200);
        for case in channels {
            let channel = case["channel"].as_str().unwrap();
            assert_eq!(format!("{:016x}", fnv1a64(channel)), case["fnv1a64"].as_str().unwrap(), "{channel}");
            for count in [2, 3, 5] {
                let recorded = &case[format!("shard_of_{count}")];
                assert_eq!(Value::from(consistent_index(channel, count)), *recorded, "{channel} of {count}");
            }
            assert_eq!(Value::from(slot(&format!("{{{channel}}}"))), case["slot_of_braced"], "{channel}");
        }
    }

    #[test]
    fn more_servers_than_were_recorded() {
        let expected = [("chat:index", [0, 58, 78]), ("news", [3, 61, 81]), ("канал", [6, 36, 36])];
        for (channel, places) in expected {
            assert_eq!([8, 64, 128].map(|count| consistent_index(channel, count)), places, "{channel}");
        }
    }

    #[test]
    fn one_server_and_none_are_place_0() {
        assert_eq!(consistent_index("news", 1), 0);
        assert_eq!(consistent_index("news", 0), 0);
    }

    #[test]
    fn an_empty_or_open_tag_leaves_the_whole_key() {
        assert_eq!(slot("{}news"), crc16(b"{}news") & 0x3fff);
        assert_eq!(slot("{news"), crc16(b"{news") & 0x3fff);
        assert_eq!(slot("a{news}b{c}"), slot("{news}"));
    }
}
