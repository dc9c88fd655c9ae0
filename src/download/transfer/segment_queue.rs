//! Who fetches which bytes of one file.

/// What is missing of a file, in spans; each is fetched over one connection at a time.
#[derive(Debug)]
pub(crate) struct Spans {
    spans: Vec<Span>,
    /// A span is not divided into parts that are smaller.
    least: u64,
    next_id: u64,
    stopped: bool,
}

/// The bytes from `at` up to but not with `end`.
#[derive(Debug)]
struct Span {
    id: u64,
    at: u64,
    end: u64,
    /// As far as this they have come, whether they are claimed or not.
    come: u64,
    /// How far the body that fills it goes, while there is one.
    reach: Option<u64>,
}

impl Spans {
    /// The `gaps` of a file.
    pub(crate) fn new(gaps: &[(u64, u64)], least: u64) -> Self {
        let span = |(id, &(at, end))| Span {
            id,
            at,
            end,
            come: at,
            reach: None,
        };
        let spans = (0..).zip(gaps).map(span).collect();
        Self {
            spans,
            least: least.max(1),
            next_id: gaps.len() as u64,
            stopped: false,
        }
    }

    /// Whether more than one connection has something to do.
    pub(crate) fn are_worth_it(&self) -> bool {
        self.spans.len() > 1 || self.spans.iter().any(|span| self.is_divisible(span))
    }

    /// Takes the first span, for a body that goes as far as `reach`.
    pub(crate) fn take_first(&mut self, reach: u64) -> Option<(u64, u64)> {
        let span = self.spans.first_mut()?;
        span.reach = Some(reach);
        Some((span.id, span.at))
    }

    /// Takes a span that nobody fills; where there is none, the second half of the one of which
    /// most is left. `None` where that is not worth it, and when it was told to stop.
    pub(crate) fn take(&mut self) -> Option<(u64, u64, u64)> {
        if self.stopped {
            return None;
        }
        let at = match self.spans.iter().position(|span| span.reach.is_none()) {
            Some(at) => at,
            None => self.divide()?,
        };
        let span = &mut self.spans[at];
        span.reach = Some(span.end);
        Some((span.id, span.at, span.end))
    }

    fn divide(&mut self) -> Option<usize> {
        let longest = self
            .spans
            .iter()
            .enumerate()
            .max_by_key(|(_, span)| span.end - span.at)?
            .0;
        let span = &mut self.spans[longest];
        let middle = span.at + (span.end - span.at) / 2;
        let (at, end, id) = (middle.max(span.come), span.end, self.next_id);
        if end - at < self.least || at - span.at < self.least {
            return None;
        }
        span.end = at;
        self.next_id += 1;
        self.spans.insert(
            longest + 1,
            Span {
                id,
                at,
                end,
                come: at,
                reach: None,
            },
        );
        Some(longest + 1)
    }

    fn is_divisible(&self, span: &Span) -> bool {
        span.end - span.at >= self.least.saturating_mul(2)
    }

    /// How many bytes are left of a span.
    pub(crate) fn left(&self, id: u64) -> u64 {
        self.spans
            .iter()
            .find(|span| span.id == id)
            .map_or(0, |span| span.end - span.at)
    }

    /// The body that fills a span has come as far as this.
    pub(crate) fn has_come(&mut self, id: u64, position: u64) {
        for span in self.spans.iter_mut().filter(|span| span.id == id) {
            span.come = position.clamp(span.come, span.end);
        }
    }

    /// Of `count` bytes that have come for a span, so many are to be written, and where: another
    /// may have taken over the rest meanwhile. They count as written from now on.
    pub(crate) fn claim(&mut self, id: u64, count: u64) -> (u64, u64) {
        let Some(span) = self.spans.iter_mut().find(|span| span.id == id) else {
            return (0, 0);
        };
        let (at, count) = (span.at, count.min(span.end - span.at));
        span.at += count;
        span.come = span.come.max(span.at);
        (at, count)
    }

    /// Nobody fills this span any more. What is left of it falls to the body before it, if that
    /// goes so far; else to whoever takes it.
    pub(crate) fn give_back(&mut self, id: u64) {
        for span in self.spans.iter_mut().filter(|span| span.id == id) {
            (span.reach, span.come) = (None, span.at);
        }
        self.spans
            .retain(|span| span.at < span.end || span.reach.is_some());
        self.spans.dedup_by(|span, before| {
            let is_free = before.end == span.at && span.reach.is_none();
            let joins = is_free && before.reach.is_none_or(|reach| reach >= span.end);
            if joins {
                before.end = span.end;
            }
            joins
        });
    }

    /// No more connections: whoever has one goes on.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// How many bytes have not come.
    pub(crate) fn missing(&self) -> u64 {
        self.spans.iter().map(|span| span.end - span.come).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_takes_half_of_what_is_left_most() {
        let mut spans = Spans::new(&[(0, 800)], 100);
        assert_eq!(spans.take_first(800), Some((0, 0)));
        let taken: Vec<_> = std::iter::from_fn(|| spans.take()).collect();
        let ranges: Vec<_> = taken.iter().map(|(_, at, end)| (*at, *end)).collect();
        let first = [
            (400, 800),
            (600, 800),
            (200, 400),
            (700, 800),
            (500, 600),
            (300, 400),
            (100, 200),
        ];
        assert_eq!(ranges, first);
        assert_eq!(spans.left(0), 100);
        assert_eq!(spans.missing(), 800);
    }

    #[test]
    fn what_has_come_beyond_the_end_is_anothers() {
        let mut spans = Spans::new(&[(0, 800)], 1);
        spans.take_first(800);
        assert_eq!(spans.claim(0, 300), (0, 300));
        let (other, at, end) = spans.take().unwrap();
        assert_eq!((at, end), (550, 800));
        assert_eq!(spans.claim(0, 300), (300, 250));
        assert_eq!(spans.claim(0, 1), (550, 0));
        spans.give_back(0);
        assert_eq!((spans.missing(), spans.left(other)), (250, 250));
    }

    #[test]
    fn what_has_come_is_missing_no_more_and_is_not_taken_over() {
        let mut spans = Spans::new(&[(0, 800)], 100);
        spans.take_first(800);
        spans.has_come(0, 500);
        assert_eq!((spans.missing(), spans.left(0)), (300, 800));
        assert_eq!(spans.take().map(|(_, at, end)| (at, end)), Some((500, 800)));
        spans.has_come(0, 600);
        assert_eq!((spans.missing(), spans.claim(0, 600)), (300, (0, 500)));
        let (last, ..) = spans.take().unwrap();
        spans.has_come(last, 700);
        assert_eq!(spans.missing(), 250);
        spans.give_back(last);
        assert_eq!(spans.missing(), 300, "what was not claimed is lost");
    }

    #[test]
    fn what_is_given_back_falls_to_the_body_before_it_that_goes_so_far() {
        let mut spans = Spans::new(&[(0, 800)], 1);
        spans.take_first(800);
        let (second, ..) = spans.take().unwrap();
        spans.claim(second, 10);
        spans.give_back(second);
        // Between the two are ten bytes that are there: the first body would bring them again.
        assert_eq!((spans.left(0), spans.missing()), (400, 790));
        assert_eq!(spans.take(), Some((1, 410, 800)));
        let (third, at, end) = spans.take().unwrap();
        assert_eq!((at, end), (200, 400));
        spans.give_back(third);
        assert_eq!(spans.left(0), 400);
        spans.stop();
        assert_eq!(spans.take(), None);
    }

    #[test]
    fn all_that_is_given_back_falls_to_the_first_body_in_whatever_order() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3]] {
            let mut spans = Spans::new(&[(0, 800)], 100);
            spans.take_first(800);
            for _ in 0..3 {
                spans.take().unwrap();
            }
            order.into_iter().for_each(|id| spans.give_back(id));
            assert_eq!((spans.left(0), spans.missing()), (800, 800), "{order:?}");
        }
    }

    #[test]
    fn what_is_missing_is_fetched_once_whoever_takes_it() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..500 {
            let mut spans = Spans::new(&[(3, 50), (60, 99)], random.u64(1..20));
            let (mut came, mut at_work) = ([0; 100], vec![]);
            at_work.extend(spans.take_first(99).map(|(id, _)| id));
            while spans.missing() > 0 {
                if at_work.is_empty() || random.u8(..4) == 0 {
                    at_work.extend(spans.take().map(|(id, ..)| id));
                }
                let Some(&id) = random.choice(&at_work) else {
                    continue;
                };
                let (at, count) = spans.claim(id, random.u64(..20));
                came[at as usize..(at + count) as usize]
                    .iter_mut()
                    .for_each(|byte| *byte += 1);
                if spans.left(id) == 0 || random.u8(..4) == 0 {
                    spans.give_back(id);
                    at_work.retain(|other| *other != id);
                }
            }
            let is_missing = |at: &usize| (3..50).contains(at) || (60..99).contains(at);
            let good = (0..100).all(|at| came[at] == i32::from(is_missing(&at)));
            assert!(good, "seed {seed}: {came:?}");
        }
    }
}
