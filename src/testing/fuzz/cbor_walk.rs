//! Any bytes as one item of our CBOR: the strict walk accepts nothing that a lenient reader of another
//! hand would not read, and nothing that this reader would write otherwise.

use crate::wire::cbor::{self, Reader};

pub(super) fn run(data: &[u8]) {
    let checked = cbor::check(data, "item");
    if let Err(error) = &checked {
        assert!(error.offset().is_none_or(|at| at <= data.len()), "{error}");
        return;
    }
    let mut reader = Reader::new(data);
    assert!(reader.skip("item").is_ok() && reader.is_empty());
    let value: ciborium::Value = match ciborium::from_reader(data) {
        Ok(value) => value,
        Err(error) => panic!("taken for an item, and none: {error}"),
    };
    let mut written = Vec::new();
    assert!(ciborium::into_writer(&value, &mut written).is_ok());
    assert!(written == data, "{data:02x?} has another spelling: {written:02x?}");
}
