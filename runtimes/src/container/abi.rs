//! The ABI of a contract, as the container carries it.

use alloy_primitives::{FixedBytes, keccak256};
use serde::{Deserialize, Serialize};

/// The first four bytes of call data, which name the function.
pub type Selector = FixedBytes<4>;

/// The interface of a contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abi {
    /// The contract's name.
    #[serde(default)]
    pub contract: String,
    /// Its functions.
    #[serde(default)]
    pub functions: Vec<Function>,
    /// Its events, as the compiler wrote them.
    #[serde(default)]
    pub events: Vec<serde_json::Value>,
    /// Its state variables, as the compiler wrote them.
    #[serde(default)]
    pub state_variables: Vec<serde_json::Value>,
    /// Its tables, as the compiler wrote them.
    #[serde(default)]
    pub tables: Vec<serde_json::Value>,
}

impl Abi {
    /// The function that call data starting with `selector` calls.
    pub fn function(&self, selector: Selector) -> Option<&Function> {
        self.functions
            .iter()
            .find(|function| function.selector == selector)
    }

    /// The functions whose selector is not the one their name and types give.
    pub fn wrong_selectors(&self) -> impl Iterator<Item = &Function> {
        self.functions
            .iter()
            .filter(|function| function.selector != function.computed_selector())
    }
}

/// A function of a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its selector as written, four bytes in hex.
    pub selector: Selector,
    /// Who may call it, as the compiler wrote it.
    #[serde(default)]
    pub visibility: String,
    /// Whether it changes state or takes value, as the compiler wrote it.
    #[serde(default)]
    pub mutability: String,
    /// What it takes.
    #[serde(default)]
    pub inputs: Vec<Parameter>,
    /// What it returns.
    #[serde(default)]
    pub outputs: Vec<Parameter>,
}

impl Function {
    /// `name(type,…)` with the type names as written.
    pub fn signature(&self) -> String {
        let types: Vec<&str> = self.inputs.iter().map(|input| input.ty.as_str()).collect();
        format!("{}({})", self.name, types.join(","))
    }

    /// The selector that follows from the signature.
    pub fn computed_selector(&self) -> Selector {
        selector(&self.signature())
    }
}

/// A parameter or result of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name, may be empty.
    #[serde(default)]
    pub name: String,
    /// Its type's name.
    #[serde(rename = "type")]
    pub ty: String,
}

/// The selector of a signature: the first four bytes of its keccak256.
pub fn selector(signature: &str) -> Selector {
    let [a, b, c, d, ..] = keccak256(signature.as_bytes()).0;
    Selector::new([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABI: &str = r#"{"contract":"Token","functions":[{"name":"transfer","selector":"0xa9059cbb","visibility":"public",
        "mutability":"nonpayable","inputs":[{"name":"to","type":"address"},{"name":"value","type":"uint256"}],
        "outputs":[{"name":"","type":"bool"}]}],"events":[],"state_variables":[],"tables":[]}"#;

    #[test]
    fn an_abi_is_written_and_read_back() {
        let abi: Abi = serde_json::from_str(ABI).expect("reads");
        let text = serde_json::to_string(&abi).expect("writes");
        assert_eq!(serde_json::from_str::<Abi>(&text).expect("reads"), abi);
        let original: serde_json::Value = serde_json::from_str(ABI).expect("reads");
        assert_eq!(serde_json::to_value(&abi).expect("writes"), original);
    }

    #[test]
    fn the_selector_follows_from_name_and_types() {
        let mut abi: Abi = serde_json::from_str(ABI).expect("reads");
        assert_eq!(abi.functions[0].signature(), "transfer(address,uint256)");
        let selector = selector("transfer(address,uint256)");
        assert_eq!(selector, [0xa9, 0x05, 0x9c, 0xbb]);
        assert_eq!(abi.function(selector), Some(&abi.functions[0]));
        assert_eq!(abi.wrong_selectors().count(), 0);
        abi.functions[0].name.push('2');
        assert_eq!(abi.wrong_selectors().count(), 1);
    }
}
