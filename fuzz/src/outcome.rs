//! What a client makes of an answer.

/// How it ended.
#[derive(Debug)]
pub enum Outcome<E> {
    /// The client takes the answer for whole.
    Whole(Answer),
    /// It does not, after this much of the body.
    Failed { body: Vec<u8>, error: E },
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The fields in the order of their names, those of one name in their own.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}
