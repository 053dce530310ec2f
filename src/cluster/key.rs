//! NKEYs: what a box identifies itself with to the servers.

use nkeys::{KeyPair, KeyPairType};

/// The seed of a new key, which never leaves its box.
pub fn generate() -> Result<String, String> {
    KeyPair::new_user().seed().map_err(|error| error.to_string())
}

/// Refuses what is no seed of a user's NKEY.
pub fn check(text: &str) -> Result<(), String> {
    match KeyPair::from_seed(text).map(|pair| pair.key_pair_type()) {
        Ok(KeyPairType::User) => Ok(()),
        Ok(_) => Err("is the seed of another kind of NKEY; expected that of a user, which begins with SU".to_owned()),
        Err(_) => Err("holds no seed of an NKEY; expected one line of 58 characters that begins with SU".to_owned()),
    }
}

/// Whether this is the public key of a user.
pub fn is_public(text: &str) -> bool {
    KeyPair::from_public_key(text).is_ok_and(|pair| pair.key_pair_type() == KeyPairType::User)
}

/// The public key of a seed.
pub fn public_key(seed: &str) -> Result<String, String> {
    let key = KeyPair::from_seed(seed).map_err(|error| error.to_string())?;
    Ok(key.public_key())
}
