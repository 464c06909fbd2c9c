//! Keys and what is done with them: identities, signatures, seals.
//!
//! Everything here is pure but [`key_file`], which keeps an identity on disk, and [`random`],
//! which asks the operating system. Time and randomness are arguments. Secrets live in types that
//! wipe themselves and print nothing.
//!
//! - A signature is made and checked through [`sign::Input`] only, which takes the type of what is
//!   signed, so that a signature of one kind never passes for another.
//! - A public key enters the system through [`sign::VerifyKey`], which refuses the keys that
//!   anybody can sign for.
//! - A payload is sealed to a [`key_record::VerifiedKeyRecord`] and opened by [`seal::open`], or by
//!   [`seal::OpenSessions`], which remembers the keys that it agreed on.
//!
//! Absent on purpose: batch verification (its predicate differs from the strict one), trial
//! decryption, Ed25519 keys used for key agreement, a fallback for anything that fails.

pub mod address;
pub mod aead;
pub mod age;
pub mod agree;
pub mod error;
pub mod file;
pub mod hash;
pub mod identity;
pub mod kdf;
pub mod key_file;
pub mod key_record;
pub mod merkle;
pub mod own_seal;
pub mod random;
pub mod receiver;
pub mod remembered;
pub mod seal;
pub mod sign;

pub use address::{compute_address, network_id, network_tag};
pub use age::{AgeError, Passphrase, WorkFactor};
pub use error::{CryptoError, IdentityError, KeyFault};
pub use file::FileKey;
pub use identity::MeshIdentity;
pub use key_record::VerifiedKeyRecord;
pub use merkle::MerkleTree;
pub use own_seal::OwnSeal;
pub use receiver::{ReceiverKeys, RotationPolicy};
pub use seal::{OpenError, OpenSessions, Padding, SealSession, SealSessions};
pub use sign::{Input, SignatureInput, SignedType, VerifyKey};
