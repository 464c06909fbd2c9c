//! The age format: both directions, every way to break a file, and files of another program.

use super::*;
use crate::crypto::random::SeededRng;

/// Cheap, as only tests may be: what is written for people has at least [`WorkFactor::MIN`].
const CHEAP: WorkFactor = WorkFactor(4);

const LIMIT: usize = 1 << 20;

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
}

fn sealed(plaintext: &[u8]) -> Vec<u8> {
    encrypt(&passphrase("opensesame"), CHEAP, plaintext, &mut SeededRng::new(1)).unwrap()
}

fn opened(file: &[u8]) -> Result<Vec<u8>, AgeError> {
    decrypt(&passphrase("opensesame"), file, LIMIT).map(|content| content.to_vec())
}

/// Splits a file behind its header.
fn header_end(file: &[u8]) -> usize {
    let mac = file.windows(5).position(|w| w == b"\n--- ").unwrap() + 1;
    mac + file[mac..].iter().position(|b| *b == b'\n').unwrap() + 1
}

/// The file with its header's text changed.
fn with_header(file: &[u8], change: impl FnOnce(String) -> String) -> Vec<u8> {
    let end = header_end(file);
    let header = change(String::from_utf8(file[..end].to_vec()).unwrap());
    [header.as_bytes(), &file[end..]].concat()
}

#[test]
fn every_size_round_trips_binary_and_armoured() {
    for len in [0, 1, 47, 48, 49, 65_535, 65_536, 65_537, 131_072, 200_000] {
        let plaintext: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let file = sealed(&plaintext);
        assert_eq!(opened(&file), Ok(plaintext.clone()), "{len}");
        let armored = armor::write(&file);
        assert!(armored.lines().all(|line| line.len() <= 64) && is_age(armored.as_bytes()));
        assert_eq!(opened(armored.as_bytes()), Ok(plaintext.clone()), "{len}");
        assert_eq!(opened(format!("\n {}\r\n\n", armored.replace('\n', "\r\n")).as_bytes()), Ok(plaintext));
    }
}

/// What `age --passphrase --armor` (version 1.1.1) wrote.
const OF_ANOTHER_PROGRAM: &str = "\
-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBtN29lNHJWdGNWTXJKdG9X
V1NYNGl3IDE4CnEwS3NXY2l1N2wyY3dCTlVZUm9MOW40OHRIQVUxR2oveGhtK2RX
eVBWUW8KLS0tIEVISm1OMXcyWFFmV3RqdmgwV3QwVHE3OFJKbERvcWR4a3F3b2Qr
MU10RkEKbsD71ZXHvBOH3YAYiWZKl/o/uadppoiawG0wJq3H6cVkyZ512Vi6dA2R
TN640pe8+6CbsYNRMg==
-----END AGE ENCRYPTED FILE-----
";

#[test]
fn a_file_of_another_program_opens() {
    assert_eq!(opened(OF_ANOTHER_PROGRAM.as_bytes()), Ok(b"made by another program".to_vec()));
}

#[test]
fn two_files_of_one_content_have_nothing_in_common() {
    let mut rng = SeededRng::new(2);
    let mut file = || encrypt(&passphrase("opensesame"), CHEAP, b"content", &mut rng).unwrap();
    let (one, two) = (file(), file());
    assert_ne!(one[header_end(&one)..], two[header_end(&two)..]);
    let salt = |file: &[u8]| String::from_utf8_lossy(file).lines().nth(1).unwrap().to_owned();
    assert_ne!(salt(&one), salt(&two));
}

#[test]
fn another_passphrase_opens_nothing() {
    let file = sealed(b"content");
    for wrong in ["opensesam", "opensesame ", "Opensesame", "x"] {
        assert_eq!(decrypt(&passphrase(wrong), &file, LIMIT).unwrap_err(), AgeError::WrongPassphrase);
    }
}

#[test]
fn a_changed_bit_is_seen_wherever_it_is() {
    let file = sealed(b"content");
    for at in 0..file.len() {
        let mut wrong = file.clone();
        wrong[at] ^= 1;
        assert!(opened(&wrong).is_err(), "byte {at}");
    }
}

#[test]
fn a_file_cut_off_anywhere_gives_nothing() {
    let file = sealed(b"content");
    for end in 0..file.len() {
        assert!(opened(&file[..end]).is_err(), "{end} bytes");
    }
    assert!(opened(&[&file[..], b"x"].concat()).is_err());
}

#[test]
fn chunks_are_seen_that_are_moved_left_out_repeated_or_cut() {
    const SEALED: usize = 65_536 + 16;
    let file = sealed(&vec![7; 3 * 65_536]);
    let (head, body) = file.split_at(header_end(&file) + PAYLOAD_NONCE_BYTES);
    let chunks: Vec<&[u8]> = body.chunks(SEALED).collect();
    let [a, b, c] = chunks[..] else { panic!("{} chunks", chunks.len()) };
    let of = |parts: &[&[u8]]| [&[head], parts].concat().concat();
    assert!(opened(&of(&[a, b, c])).is_ok());
    for (wrong, chunk) in [
        (of(&[b, a, c]), 0),
        (of(&[a, c, b]), 1),
        (of(&[a, b]), 1),
        (of(&[a, c]), 1),
        (of(&[a, a, b, c]), 1),
        (of(&[a, b, c, c]), 2),
        (of(&[a, b, &c[..c.len() - 1]]), 2),
        (of(&[a, b, &c[..3]]), 2),
        (of(&[]), 0),
    ] {
        assert_eq!(opened(&wrong), Err(AgeError::Content { chunk }));
    }
}

#[test]
fn a_last_chunk_that_is_empty_is_refused_behind_another() {
    let key = [9; 32];
    let mut payload = Vec::new();
    stream::seal(&key, &vec![1; stream::CHUNK_BYTES], &mut payload);
    // As a writer would that ends every payload with an empty chunk: the full one is not marked last.
    let mut wrong = Vec::new();
    stream::seal(&key, &vec![1; stream::CHUNK_BYTES + 1], &mut wrong);
    wrong.truncate(stream::CHUNK_BYTES + 16);
    let mut empty = Vec::new();
    let tag = crate::crypto::aead::encrypt(&key, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1], &[], &mut empty);
    wrong.extend_from_slice(&tag.unwrap());
    assert_eq!(stream::open(&key, &wrong).unwrap_err(), AgeError::Content { chunk: 1 });
    assert!(stream::open(&key, &payload).is_ok());
}

#[test]
fn work_factors_are_canonical_and_bounded() {
    let file = sealed(b"content");
    let with =
        |work: &str| opened(&with_header(&file, |text| text.replacen(" 4\n", &format!(" {work}\n"), 1)));
    assert_eq!(with("4"), Ok(b"content".to_vec()));
    for huge in ["23", "63", "64", "255", "256", "99999999999999999999999"] {
        assert!(matches!(with(huge), Err(AgeError::WorkFactor { .. })), "{huge}");
    }
    for malformed in ["04", "+4", "-4", "0", "", "4 4", "4.0", "0x4", "four"] {
        assert!(matches!(with(malformed), Err(AgeError::Header(_))), "{malformed:?}: {:?}", with(malformed));
    }
    assert_eq!(with("5"), Err(AgeError::WrongPassphrase));
    for refused in [0, 14, 19, 22, 255] {
        assert!(WorkFactor::new(refused).is_err());
    }
    assert_eq!(WorkFactor::new(15).unwrap().log_n(), 15);
}

#[test]
fn headers_are_read_strictly() {
    let file = sealed(b"content");
    let stanza = "-> X25519 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nAAAA\n";
    let scrypt = |text: &str| {
        let start = text.find("-> ").unwrap();
        text[start..text.find("---").unwrap()].to_owned()
    };
    let change = |change: &dyn Fn(String) -> String| opened(&with_header(&file, change)).unwrap_err();

    // A passphrase stands alone, whatever is beside it and where.
    let alone = AgeError::Header("a passphrase has to be its only way in");
    assert_eq!(change(&|t| t.replacen("-> ", &format!("{stanza}-> "), 1)), alone);
    assert_eq!(change(&|t| t.replacen("---", &format!("{stanza}---"), 1)), alone);
    assert_eq!(change(&|t| t.replacen("---", &format!("{}---", scrypt(&t)), 1)), alone);
    assert_eq!(change(&|t| t.replacen("---", "-> x-grease\n\n---", 1)), alone);
    assert_eq!(change(&|t| t.replacen(&scrypt(&t), stanza, 1)), AgeError::NotUnderPassphrase);

    let is_header = |error: AgeError| assert!(matches!(error, AgeError::Header(_)), "{error:?}");
    is_header(change(&|t| t.replacen(&scrypt(&t), "", 1)));
    is_header(change(&|t| t.replacen("-> scrypt", "->  scrypt", 1)));
    is_header(change(&|t| t.replacen("-> scrypt", "->scrypt", 1)));
    is_header(change(&|t| t.replacen(" 4\n", " 4 \n", 1)));
    is_header(change(&|t| t.replacen(" 4\n", " 4\r\n", 1)));
    is_header(change(&|t| t.replacen(" 4\n", " 4\n\n", 1)));
    is_header(change(&|t| t.replacen("--- ", "---", 1)));
    is_header(change(&|t| t.replacen("--- ", "---  ", 1)));
    is_header(change(&|t| t.replacen("--- ", "--- =", 1)));
    is_header(change(&|t| t.trim_end().to_owned() + "=\n"));
    is_header(change(&|t| t.replacen("scrypt", "scr\u{ff}pt", 1)));
    // A longer body, folded as bodies are.
    is_header(change(&|t| t.replacen("\n---", &format!("{}\nAAAA\n---", "A".repeat(21)), 1)));
    // A second spelling of the same salt: its last character carries bits that do not count.
    let salt_end = |t: &str| t.find(" 4\n").unwrap();
    is_header(change(&|mut t| {
        let end = salt_end(&t);
        let last = t.as_bytes()[end - 1];
        t.replace_range(end - 1..end, &char::from(last + 1).to_string());
        t
    }));
    for version in ["age-encryption.org/v2\n", "age-encryption.org/v1\r\n", "AGE-encryption.org/v1\n"] {
        assert_eq!(change(&|t| t.replacen("age-encryption.org/v1\n", version, 1)), AgeError::NotAge);
    }
    // Endless ones end.
    let endless = [header::VERSION_LINE, &vec![b'a'; 10 << 20]].concat();
    assert!(matches!(opened(&endless), Err(AgeError::Header(_))));
    let many = [header::VERSION_LINE, b"-> x\n\n".repeat(1 << 20).as_slice()].concat();
    assert!(matches!(opened(&many), Err(AgeError::Header(_))));
}

#[test]
fn an_authenticator_that_does_not_fit_is_told_from_a_wrong_passphrase() {
    let file = sealed(b"content");
    let wrong = with_header(&file, |text| {
        let at = text.find("--- ").unwrap() + 4;
        let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut text = text;
        text.replace_range(at..=at, other);
        text
    });
    assert_eq!(opened(&wrong), Err(AgeError::HeaderChanged));
}

#[test]
fn armour_is_read_strictly() {
    let armored = armor::write(&sealed(&[7; 100]));
    let is_refused = |text: String| {
        let refused = opened(text.as_bytes()).unwrap_err();
        assert!(matches!(refused, AgeError::Armor(_)), "{refused:?}: {text}");
    };
    is_refused(armored.replace("-----END AGE ENCRYPTED FILE-----\n", ""));
    is_refused(armored.replace("-----END AGE", "-----END  AGE"));
    is_refused(armored.replacen("-----\n", "-----\n\n", 1));
    is_refused(armored.replacen("-----\n", "----- x\n", 1));
    is_refused(armored.replacen("-----\n", "-----\n ", 1));
    is_refused(armored.replacen("\n-----END", "-----END", 1));
    is_refused(armored.replacen("\n-----END", "\nAAAA\n-----END", 1));
    is_refused(armored.replacen('\n', "", 2));
    is_refused(armored.clone() + "text behind it");
    is_refused(format!("{armored}{armored}"));
    assert_eq!(opened(b"text in front\n").unwrap_err(), AgeError::NotAge);
}

#[test]
fn what_is_too_large_is_refused_before_the_work() {
    let file = sealed(&[0; 1000]);
    // A wrong passphrase would be told otherwise.
    let refused = decrypt(&passphrase("wrong"), &file, 999).unwrap_err();
    assert_eq!(refused, AgeError::TooLarge { limit: 999 });
    assert!(decrypt(&passphrase("opensesame"), &file, 1000).is_ok());
    assert_eq!((check(&file, 999), check(&file, 1000)), (Err(refused), Ok(())));
}

#[test]
fn passphrases_are_bounded_and_print_nothing() {
    let new = |len: usize| Passphrase::new(Zeroizing::new("x".repeat(len)));
    assert!(new(0).is_err() && new(1025).is_err() && new(1024).is_ok());
    assert_eq!(format!("{:?}", passphrase("opensesame")), "Passphrase(..)");
    assert!(passphrase("ab").is_same(&passphrase("ab")) && !passphrase("ab").is_same(&passphrase("ac")));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(256))]
    /// Whatever the bytes, an answer comes, and never content.
    #[test]
    fn garbage_gives_nothing(bytes: Vec<u8>, keep in 0_usize..300, from in 0_usize..300) {
        let file = sealed(b"content");
        let mixed = [&file[..keep.min(file.len())], &bytes, &file[from.min(file.len())..]].concat();
        if mixed != file {
            proptest::prop_assert!(opened(&mixed).is_err());
        }
    }
}
