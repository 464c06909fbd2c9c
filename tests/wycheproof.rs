//! Published test vectors through our own functions: Wycheproof, RFC 8032 and RFC 7748, and the
//! edge cases on which Ed25519 implementations part ways.

use quicprochat_mesh::{
    crypto::{
        CryptoError, VerifyKey, aead,
        agree::{agree, public_of},
        kdf::hkdf_sha256,
        sign::untagged,
    },
    wire::{PublicKey, Signature, ids::unhex},
};
use wycheproof::TestResult;
use x25519_dalek::StaticSecret;

/// Decodes a key and checks a signature as a node does, whatever the lengths given.
fn accepts(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (key.try_into(), signature.try_into()) else { return false };
    VerifyKey::new(&PublicKey(key)).is_ok_and(|key| untagged::verify(&key, message, &Signature(signature)))
}

fn expected(result: TestResult) -> bool {
    match result {
        TestResult::Valid => true,
        TestResult::Invalid => false,
        TestResult::Acceptable => panic!("these sets leave nothing open"),
    }
}

#[test]
fn wycheproof_ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let mut count = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let accepted = accepts(&group.key.pk, &test.msg, &test.sig);
            assert_eq!(accepted, expected(test.result), "{} {}", test.tc_id, test.comment);
            count += 1;
        }
    }
    assert!(count >= 150, "{count}");
}

#[test]
fn wycheproof_x25519() {
    use wycheproof::xdh::{TestFlag, TestName, TestSet};
    let set = TestSet::load(TestName::X25519).unwrap();
    let (mut count, mut zero) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let secret: [u8; 32] = test.private_key[..].try_into().unwrap();
        let Ok(public) = test.public_key[..].try_into() else {
            assert!(test.flags.contains(&TestFlag::PublicKeyTooLong), "{}", test.tc_id);
            continue;
        };
        let shared = agree(&StaticSecret::from(secret), &public);
        if test.flags.contains(&TestFlag::ZeroSharedSecret) {
            assert_eq!(shared, Err(CryptoError::NonContributory), "{} {}", test.tc_id, test.comment);
            zero += 1;
        } else {
            // Twists, small keys and second spellings are acceptable where they contribute.
            assert_eq!(shared.unwrap()[..], test.shared_secret[..], "{} {}", test.tc_id, test.comment);
        }
        count += 1;
    }
    assert!(count >= 510 && zero >= 31, "{count} {zero}");
}

#[test]
fn wycheproof_chacha20_poly1305() {
    use wycheproof::aead::{TestName, TestSet};
    let set = TestSet::load(TestName::ChaCha20Poly1305).unwrap();
    let mut count = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let valid = expected(test.result);
        let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else {
            // Our functions take no other length.
            assert!(!valid, "{}", test.tc_id);
            continue;
        };
        let key = test.key[..].try_into().unwrap();
        let mut opened = test.ct.to_vec();
        let tag = test.tag[..].try_into().unwrap();
        let verdict = aead::decrypt(&key, &nonce, &test.aad, &mut opened, &tag);
        assert_eq!(verdict.is_ok(), valid, "{} {}", test.tc_id, test.comment);
        if valid {
            assert_eq!(opened, test.pt[..], "{}", test.tc_id);
            let mut sealed = test.pt.to_vec();
            let made = aead::encrypt(&key, &nonce, &test.aad, &mut sealed).unwrap();
            assert_eq!((&sealed[..], made), (&test.ct[..], tag), "{}", test.tc_id);
        }
        count += 1;
    }
    assert!(count >= 300, "{count}");
}

#[test]
fn wycheproof_hkdf_sha256() {
    use wycheproof::hkdf::{TestName, TestSet};
    let set = TestSet::load(TestName::HkdfSha256).unwrap();
    let mut count = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut out = vec![0; test.size];
        let derived = hkdf_sha256(&test.salt, &test.ikm, &test.info, &mut out);
        assert_eq!(derived.is_ok(), expected(test.result), "{} {}", test.tc_id, test.comment);
        match derived {
            Ok(()) => assert_eq!(out, test.okm[..], "{}", test.tc_id),
            Err(error) => assert_eq!(error, CryptoError::KdfOutput { asked: test.size }),
        }
        count += 1;
    }
    assert!(count >= 80, "{count}");
}

#[test]
fn rfc_8032_section_7_1() {
    for (seed, public, message, signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            &[][..],
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            &[0x72],
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            &[0xaf, 0x82],
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let (key, made) = untagged::sign(&unhex(seed).unwrap(), message);
        assert_eq!((key.to_string(), made.to_string()), (public.into(), signature.into()));
        assert!(accepts(key.as_bytes(), message, made.as_bytes()));
        assert!(!accepts(key.as_bytes(), b"another", made.as_bytes()));
    }
}

/// X25519 of RFC 7748 section 5: `k` times the point `u`.
fn x25519(k: [u8; 32], u: [u8; 32]) -> [u8; 32] {
    *agree(&StaticSecret::from(k), &u).expect("no point of the vectors is of small order")
}

#[test]
fn rfc_7748_section_5_2() {
    for (k, u, out) in [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ] {
        assert_eq!(x25519(unhex(k).unwrap(), unhex(u).unwrap()), unhex(out).unwrap());
    }

    let mut k = [0; 32];
    k[0] = 9;
    let mut u = k;
    for round in 1..=1000 {
        (k, u) = (x25519(k, u), k);
        if round == 1 {
            let once = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
            assert_eq!(k, unhex(once).unwrap());
        }
    }
    let thousand = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
    assert_eq!(k, unhex(thousand).unwrap());
}

#[test]
fn rfc_7748_section_6_1() {
    let pair = |secret| {
        let secret = StaticSecret::from(unhex(secret).unwrap());
        let public = public_of(&secret);
        (secret, public)
    };
    let (a, a_public) = pair("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let (b, b_public) = pair("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
    assert_eq!(a_public, unhex(public).unwrap());
    let public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
    assert_eq!(b_public, unhex(public).unwrap());
    let shared = unhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742").unwrap();
    assert_eq!(*agree(&a, &b_public).unwrap(), shared);
    assert_eq!(*agree(&b, &a_public).unwrap(), shared);
}

/// One edge case. Conditions follow the table in "Taming the many EdDSAs" (Chalkias, Garillot,
/// Nikolaenko, 2020, section 5); the values were computed for this test from the curve equation,
/// with T = a point of order 8, A = aB or aB + T, R = rB or rB + T, and messages tried until the
/// equation held, or failed, as the case wants. "Mixed" is a point of prime order plus T.
struct Case {
    about: &'static str,
    message: &'static str,
    key: &'static str,
    signature: &'static str,
}

const EDGE_CASES: [Case; 12] = [
    Case {
        about: "A small, R small, S = 0",
        message: "91b3700cb0235cd5c339b48b6938acb30a41e25fa08bb22969daee8a5493aa34",
        key: "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        signature: "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a\
                    0000000000000000000000000000000000000000000000000000000000000000",
    },
    Case {
        about: "A small, R mixed",
        message: "7d195e196cb0add647686365a5bf46bf543c1500111c974b2acce966e455bd0c",
        key: "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        signature: "8ad68e551e107a3f12636b525e56587a374336ce5119f309986190f6279e3152\
                    726d67c540b9060f8f9b4be4f0b20934aae85b38d9e1b1306b00633714877302",
    },
    Case {
        about: "A mixed, R small",
        message: "907ad501452dae83f528f9892129422490b479cbb5fefddceccbb17346ffba4c",
        key: "9c7a8e48bb3b049acde1d870e9c06e85003e54ed1f7ce1a0747ba0ac6fcc2353",
        signature: "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a\
                    77bb3f67f08888d1d23d6cd7ecd2c757c619a061c179298e37bbbea0576c2904",
    },
    Case {
        about: "A mixed, R mixed, equation holds without the cofactor",
        message: "d3f22ba64fafdb6ad342a6aba26afbc63cae5c1f7df7296e9a0aa1762af62812",
        key: "9c7a8e48bb3b049acde1d870e9c06e85003e54ed1f7ce1a0747ba0ac6fcc2353",
        signature: "8ad68e551e107a3f12636b525e56587a374336ce5119f309986190f6279e3152\
                    6649bdd0d45b575ddd8d9895d1c6a09dbc55649a8fad95024e24e1ac30963808",
    },
    Case {
        about: "A mixed, R mixed, with the cofactor only",
        message: "f83855d90b47289c1ce8d13b0f8385aaa8be0e9c6356040f97071e17641a6c48",
        key: "9c7a8e48bb3b049acde1d870e9c06e85003e54ed1f7ce1a0747ba0ac6fcc2353",
        signature: "8ad68e551e107a3f12636b525e56587a374336ce5119f309986190f6279e3152\
                    d5117dccbde33b793f51477afa205a78e31e372718b2eb7c506f848f75d05109",
    },
    Case {
        about: "A mixed, R of prime order, with the cofactor only",
        message: "be7e8bb7a4d5fac52402fd6b87333dabcccc745fa9633b310726056ef49dce71",
        key: "9c7a8e48bb3b049acde1d870e9c06e85003e54ed1f7ce1a0747ba0ac6fcc2353",
        signature: "b940c5dbc1462acaca2721c4524641f7b7dea49a9b5afc389eadf8ad24439711\
                    4b92300605d74bf441b495f79ce02a6a54335c74bb108b4298abbc7778c38f00",
    },
    Case {
        about: "S + L",
        message: "4b559952833b8228f6f8f2cbc1e3a997fcf758656505f8c5cab38fe13b05ce4c",
        key: "c52d048cad05babe54d2707a8ac12330f4ff0230f932b420bb655472b67bb618",
        signature: "b940c5dbc1462acaca2721c4524641f7b7dea49a9b5afc389eadf8ad24439711\
                    c625822deffbd989506ef8a183c74eb2d677f467da84b5135e50ddeb2042141b",
    },
    Case {
        about: "S + 14 L",
        message: "955331e83c3b6c176e0c1fec24a0061c4bc8907f9aa0e0923cebaf5faa20cd23",
        key: "c52d048cad05babe54d2707a8ac12330f4ff0230f932b420bb655472b67bb618",
        signature: "b940c5dbc1462acaca2721c4524641f7b7dea49a9b5afc389eadf8ad24439711\
                    012780f1abd35f4c280b3cb5f4cd03e127608ad98bcc094b91aa997faf8e0cec",
    },
    Case {
        about: "A mixed, R small and not canonical",
        message: "dd8ba44aba52d44a0c88c0ee623dab02e2313cebaecda86fb254810dd4ab6f96",
        key: "9c7a8e48bb3b049acde1d870e9c06e85003e54ed1f7ce1a0747ba0ac6fcc2353",
        signature: "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f\
                    b6faa1f23e1ccfe2bab7a6447fcc44afc0195f81ca02efa1381d2bf8cfc85d0d",
    },
    Case {
        about: "as before, hashed in canonical form",
        message: "cad82cc720af84b7dc96f502d6eee498677f4e78385e117679f99ca2ba81d0ac",
        key: "9c7a8e48bb3b049acde1d870e9c06e85003e54ed1f7ce1a0747ba0ac6fcc2353",
        signature: "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f\
                    bfce5bb63966f15aa7ea7096b0c7f8cded153e98bbd5f214f8dbe8fb54e8bb0a",
    },
    Case {
        about: "A small and not canonical, R mixed",
        message: "641c94e1b980f600064fac87a0a901bdc9863b3cf450e55e3db8aa67af4bfa6e",
        key: "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        signature: "dd539999cf5ec027d9e23c8dae6d05e9e5c8f8148d2301ef44a3e93dab6ea0cc\
                    726d67c540b9060f8f9b4be4f0b20934aae85b38d9e1b1306b00633714877302",
    },
    Case {
        about: "as before, hashed in canonical form",
        message: "a973bc176b61211b0a2e10ed1b3cc2adeb4248ebaf364596216d6a21e65ed708",
        key: "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        signature: "dd539999cf5ec027d9e23c8dae6d05e9e5c8f8148d2301ef44a3e93dab6ea0cc\
                    726d67c540b9060f8f9b4be4f0b20934aae85b38d9e1b1306b00633714877302",
    },
];

/// The one case that the strict predicate takes: nothing is of small order, everything is
/// canonical, and the equation holds without the cofactor.
const ACCEPTED: usize = 3;

#[test]
fn of_the_edge_cases_the_strict_predicate_takes_one() {
    for (at, case) in EDGE_CASES.iter().enumerate() {
        let (message, key) = (unhex::<32>(case.message).unwrap(), unhex::<32>(case.key).unwrap());
        let signature = unhex::<64>(case.signature).unwrap();
        assert_eq!(accepts(&key, &message, &signature), at == ACCEPTED, "{at}: {}", case.about);
    }
}

/// The edge cases are what they say: a check without our predicate takes those whose equation
/// holds, so that a refusal above is not for a mistake in the vector.
#[test]
fn a_lax_check_takes_the_edge_cases_whose_equation_holds() {
    let lax = |case: &Case| {
        use ed25519_dalek::Verifier;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&unhex(case.key).unwrap()).unwrap();
        let signature = ed25519_dalek::Signature::from_bytes(&unhex(case.signature).unwrap());
        key.verify(&unhex::<32>(case.message).unwrap(), &signature).is_ok()
    };
    let taken: Vec<usize> = (0..EDGE_CASES.len()).filter(|at| lax(&EDGE_CASES[*at])).collect();
    assert_eq!(taken, [0, 1, 2, 3, 10]);
}
