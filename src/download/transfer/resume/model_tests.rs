//! Downloads from a model of an unreliable server.

use super::*;

/// Server with correct bodies and ranges that changes versions and ignores conditions at random.
struct UnreliableServer {
    random: fastrand::Rng,
    version: usize,
    lengths: Vec<u64>,
}

impl UnreliableServer {
    /// Returns the head, the version and the offset of the body, whose length the head states.
    fn response(&mut self, request: &RangeRequest) -> (ResponseMeta, usize, u64) {
        if self.version + 1 < self.lengths.len() && self.random.u8(..4) == 0 {
            self.version += 1;
        }
        let version = self.version;
        let total = self.lengths[version];
        let etag = format!("\"{version}\"");
        let complete = ResponseMeta {
            status: 200,
            length: Some(total),
            validators: Validators {
                total: Some(total),
                etag: self.random.u8(..8).ne(&0).then_some(etag.clone()),
                ..Validators::default()
            },
            range: None,
        };
        let RangeRequest::From { offset, if_range } = request else {
            return (complete, version, 0);
        };
        let matches = if_range.as_ref().is_none_or(|condition| *condition == etag);
        if !matches || self.random.u8(..4) == 0 {
            return (complete, version, 0);
        }
        let (status, range, start) = self.range(*offset, total);
        let meta = ResponseMeta {
            status,
            length: None,
            range: Some(range),
            ..complete
        };
        (meta, version, start)
    }

    /// Returns the status, the `Content-Range` and the offset of the body.
    fn range(&mut self, offset: u64, total: u64) -> (u16, ContentRange, u64) {
        if offset >= total {
            return (416, ContentRange::None { total }, 0);
        }
        let first = if self.random.u8(..4) == 0 {
            self.random.u64(..total)
        } else {
            offset
        };
        let range = ContentRange::Part {
            first,
            last: self.random.u64(first..total),
            total: self.random.bool().then_some(total),
        };
        (206, range, first)
    }
}

/// Client with a partial file, whose bytes are stored as `(version, offset)`.
#[derive(Default)]
struct ModelClient {
    part: Vec<(usize, u64)>,
    known: Option<Validators>,
    next_request: Option<RangeRequest>,
}

/// Result of classifying a response in the model.
enum ModelStep {
    /// The body has these offsets in the file.
    Body {
        start: u64,
        end: u64,
    },
    Complete,
    NextRequest,
}

impl ModelClient {
    fn request(&mut self) -> RangeRequest {
        let have = self.part.len() as u64;
        let next = self.next_request.take();
        next.unwrap_or_else(|| plan(self.known.as_ref(), have, ResumeProof::Validator))
    }

    fn classify(&mut self, request: &RangeRequest, response: &ResponseMeta) -> ModelStep {
        let have = self.part.len() as u64;
        let total = response.validators.total;
        match classify(self.known.as_ref(), have, request, response) {
            Action::Replace { .. } => {
                self.part.clear();
                self.known = Some(response.validators.clone());
                ModelStep::Body {
                    start: 0,
                    end: total.unwrap(),
                }
            }
            Action::Rewind => ModelStep::Body {
                start: 0,
                end: total.unwrap(),
            },
            Action::Append { count, total } => {
                self.known.as_mut().unwrap().total = total;
                ModelStep::Body {
                    start: have,
                    end: have + count,
                }
            }
            Action::Complete => ModelStep::Complete,
            Action::RetryUnconditional => {
                self.next_request = Some(RangeRequest::From {
                    offset: have,
                    if_range: None,
                });
                ModelStep::NextRequest
            }
            Action::Restart(_) => {
                self.next_request = Some(RangeRequest::Full);
                ModelStep::NextRequest
            }
            Action::Reject => ModelStep::NextRequest,
        }
    }

    fn write(&mut self, offset: u64, byte: (usize, u64)) {
        match self.part.get_mut(offset as usize) {
            Some(old) => *old = byte,
            None => self.part.push(byte),
        }
    }

    fn is_complete(&self, end: u64) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|known| known.total == Some(end))
    }
}

/// Downloads a file with interruptions at random bytes.
fn fetch(seed: u64) -> Option<ModelClient> {
    let mut random = fastrand::Rng::with_seed(seed);
    let lengths = (0..3).map(|_| random.u64(1..60)).collect();
    let mut server = UnreliableServer {
        random: random.fork(),
        version: 0,
        lengths,
    };
    let mut client = ModelClient::default();
    for _ in 0..200 {
        let request = client.request();
        let (response, version, first) = server.response(&request);
        let (start, end) = match client.classify(&request, &response) {
            ModelStep::Body { start, end } => (start, end),
            ModelStep::Complete => return Some(client),
            ModelStep::NextRequest => continue,
        };
        let received_end = if random.bool() {
            end
        } else {
            random.u64(start..=end)
        };
        for offset in start..received_end {
            client.write(offset, (version, offset - start + first));
        }
        if received_end == end && client.is_complete(end) {
            return Some(client);
        }
    }
    None
}

#[test]
fn versions_are_never_mixed() {
    let seed = fastrand::u64(..);
    let mut finished = 0;
    for seed in (0..20_000).map(|round| seed.wrapping_add(round)) {
        let Some(ModelClient { part, known, .. }) = fetch(seed) else {
            continue;
        };
        finished += 1;
        let version = part[0].0;
        let is_one_version = (0..)
            .zip(&part)
            .all(|(offset, byte)| *byte == (version, offset));
        let is_complete = known.unwrap().total == Some(part.len() as u64);
        assert!(is_one_version && is_complete, "seed {seed}: {part:?}");
    }
    assert!(finished > 10_000, "only {finished} finished");
}
