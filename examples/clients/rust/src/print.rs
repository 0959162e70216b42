//! One JSON object a line, with messages in protobuf's own JSON: int64 as strings, for readers
//! that lose digits.

use std::sync::LazyLock;

use prost::Name;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions,
};
use prost_types::Struct;
use serde_json::{Value, value};

static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/jobledger.binpb"));
    DescriptorPool::decode(bytes.as_slice()).expect("as protoc wrote it")
});

pub fn print(line: Value) {
    println!("{line}");
}

pub fn message<M: Name>(message: &M) -> Value {
    let mut dynamic = DynamicMessage::new(descriptor::<M>());
    dynamic.transcode_from(message).expect("a message of its own type");
    let options = SerializeOptions::new().use_proto_field_name(true);
    dynamic.serialize_with_options(value::Serializer, &options).expect("JSON has room for all")
}

pub fn messages<M: Name>(all: &[M]) -> Value {
    all.iter().map(message).collect()
}

/// Reads a file with one JSON object.
pub fn read_struct(path: &str) -> Result<Struct, Box<dyn std::error::Error + Send + Sync>> {
    let text = std::fs::read_to_string(path)?;
    let mut json = serde_json::Deserializer::from_str(&text);
    let object = DynamicMessage::deserialize(Struct::default().descriptor(), &mut json)?;
    json.end()?;
    Ok(object.transcode_to()?)
}

fn descriptor<M: Name>() -> MessageDescriptor {
    DESCRIPTORS.get_message_by_name(&M::full_name()).expect("generated from the same protos")
}
