//! Result of a client for one response.

/// Result of reading a response.
#[derive(Debug)]
pub enum Outcome<E> {
    /// The client accepts the response as complete.
    Complete(Response),
    /// The client fails after this part of the body.
    Failed { body: Vec<u8>, error: E },
}

/// Complete response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The fields, sorted by name; fields of one name in their original order.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}
