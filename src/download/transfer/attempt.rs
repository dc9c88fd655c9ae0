//! One try to get a file, or what is missing of it.

use std::path::PathBuf;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::AsyncReadExt as _;
use smol::Timer;
use tracing::{debug, warn};
use url::Url;

use crate::download::body::copy::{Body, Source};
use crate::download::body::decode::{Coding, Decoded, accept, codings};
use crate::download::body::throttle::Paced;
use crate::download::error::DownloadError;
use crate::download::event::Event;
use crate::download::http::{HttpError, Response, shown};
use crate::download::request::redirect::Route;
use crate::download::request::send::{Asking, drain, range};
use crate::download::store::checksum::Checksum;
use crate::download::store::existing::Previous;
use crate::download::store::part::Part;
use crate::download::store::resume_state::State;
use crate::download::store::sink::Store;
use crate::download::transfer::mirrors::Mirror;
use crate::download::transfer::parallel::Segments;
use crate::download::transfer::resume::{Action, Answer, Ask, Known, Mismatch, ask, judge};
use crate::download::transfer::sources::Origins;
use crate::escape::Escaped;

/// How a try ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The file is whole.
    Whole,
    /// The server has no other file than one that was there before: that of the name which is
    /// wanted, or this.
    Needless { there: Option<PathBuf> },
}

/// Which answers make the body that follows needless.
pub(crate) enum Needless<'a> {
    Never,
    /// Those that tell of the same file as this.
    Same(Previous),
    /// Those that name a file which an earlier run has finished.
    Finished(&'a Part),
}

/// What the tries of one file have in common.
pub(crate) struct Attempt<'a, T> {
    asking: Asking<'a>,
    /// The first URL: the part is known by it, whoever sends the bytes.
    first: &'a Url,
    /// Those that have not been asked.
    mirrors: slice::Iter<'a, Mirror>,
    /// Whether a mirror is asked.
    moved: bool,
    /// Whether each source is asked alone, because what several have sent did not add up.
    apart: bool,
    store: Arc<Store>,
    tell: T,
    known: Option<Known>,
    /// Whether what is there came in this run, or a checksum will tell whether it fits.
    in_run: bool,
    needless: Needless<'a>,
    /// What the file is to add up to.
    checksum: Option<String>,
    /// Whether a redirect has been followed anew because where it led had expired.
    renewed: bool,
    /// Whether one connection is to do, because others brought nothing.
    alone: bool,
    /// Who has sent the last answer.
    server: Option<Url>,
}

impl<'a, T: Fn(Event<'_>) + Sync> Attempt<'a, T> {
    pub(crate) fn new(
        asking: Asking<'a>,
        mirrors: &'a [Mirror],
        store: Arc<Store>,
        needless: Needless<'a>,
        checksum: Option<&Checksum>,
        tell: T,
    ) -> Self {
        let checksum = checksum.filter(|_| store.is_file());
        let checksum = checksum.map(|sum| format!("{}={}", sum.algorithm(), sum.hex()));
        let is_held = |state: &State| state.held_to.is_none() || state.held_to == checksum;
        let known = store.state().filter(is_held).map(|state| state.known);
        Self {
            asking,
            first: &asking.source.url,
            mirrors: mirrors.iter(),
            moved: false,
            apart: false,
            tell,
            in_run: known.is_some() && store.is_mixed(),
            known,
            store,
            needless,
            checksum,
            renewed: false,
            alone: false,
            server: None,
        }
    }

    /// What is asked for.
    pub(crate) fn url(&self) -> &Url {
        &self.asking.source.url
    }

    /// Turns to what may do better after `error`, which is final for the source of the moment:
    /// the next mirror, or the same source from the start if bytes of two do not fit. Whether
    /// there is any.
    pub(crate) fn move_on(&mut self, error: &DownloadError) -> bool {
        let is_wrong = matches!(error, DownloadError::Checksum { .. });
        let (have, is_file) = (self.store.length(), self.store.is_file());
        let known = self.known.clone().filter(|_| !is_wrong);
        let known = known.and_then(|known| known.elsewhere(self.checksum.is_some()));
        // What has gone into a writer cannot be taken back.
        let may_go_on = is_file || have == 0 || known.is_some();
        if !error.is_of_the_source() || !may_go_on {
            return false;
        }
        self.apart |= is_wrong && self.store.is_mixed();
        if !(is_wrong && self.store.is_mixed()) {
            let Some(mirror) = self.mirrors.next() else {
                return false;
            };
            (self.asking.source, self.asking.headers) = (&mirror.source, &mirror.headers);
            self.moved = true;
            (self.tell)(Event::Mirror {
                url: self.url(),
                error,
            });
        }
        (self.renewed, self.alone, self.server) = (false, false, None);
        self.known = known;
        if let (Some(_), Some(checksum)) = (&self.known, &self.checksum) {
            self.store.hold_to(checksum);
            self.in_run |= self.store.is_mixed();
        }
        true
    }

    /// The error of a file, which tells which mirror failed last.
    pub(crate) fn last_error(&self, error: DownloadError) -> DownloadError {
        if !self.moved || !error.is_of_the_source() {
            return error;
        }
        DownloadError::Mirror {
            url: shown(self.url()),
            source: Box::new(error),
        }
    }

    /// What a later run, which asks the first URL, may take for known: no date of a mirror.
    fn lasting(&self, known: Known) -> Known {
        if self.moved {
            Known {
                date: None,
                ..known
            }
        } else {
            known
        }
    }

    /// Waits after `error`, and lets others run meanwhile where the server has asked for that.
    pub(crate) async fn pause(&self, wait: Duration, error: &DownloadError) {
        (self.tell)(Event::Retrying { wait, error });
        let timer = async {
            Timer::after(wait).await;
        };
        match self.asking.slot.filter(|_| error.retry_after().is_some()) {
            Some(slot) => slot.release_while(timer).await,
            None => timer.await,
        }
    }

    /// What the bytes go to.
    pub(crate) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Asks until the file is whole, or something goes wrong.
    pub(crate) async fn run(&mut self) -> Result<End, DownloadError> {
        loop {
            if let Some(end) = self.step().await? {
                return Ok(end);
            }
        }
    }

    /// Whether another try could add anything: what has gone into a writer cannot be taken back.
    pub(crate) fn can_go_on(&self) -> bool {
        let have = self.store.length();
        self.store.is_file() || have == 0 || ask(self.known.as_ref(), have, false) != Ask::Whole
    }

    /// Asks for what is missing and takes what comes; `None` if more is missing then. Each
    /// question is plainer than the one before, so there are at most three.
    async fn step(&mut self) -> Result<Option<End>, DownloadError> {
        let have = self.store.length();
        let mut question = match self
            .condition()
            .filter(|_| self.store.has_gaps(self.total()))
        {
            // What is unpacked has no place in the bytes that the server has.
            _ if self.asking.shared.config.compressed => Ask::Whole,
            // Where the first bytes are missing, others may be there.
            Some(condition) => Ask::Rest {
                from: have,
                if_range: Some(condition.to_owned()),
            },
            None => ask(
                self.known.as_ref(),
                have,
                self.in_run && self.store.is_file(),
            ),
        };
        loop {
            let (mut response, route) = self.asking.ask(&self.fields(&question)).await?;
            (self.tell)(Event::Responded {
                url: route.url(),
                status: response.status(),
            });
            self.server = Some(route.url().clone());
            let answer = Answer::new(response.status(), response.length(), |name| {
                response.header(name)
            });
            let action = judge(self.known.as_ref(), have, &question, &answer);
            debug!(url = %shown(self.url()), have, ?question, ?action, "asked");
            if question == Ask::Whole
                && let Some(end) = self.needless(&answer)
            {
                Box::pin(drain(response)).await;
                return Ok(Some(end));
            }
            match (action, &question) {
                (Action::Begin { changed }, _) => {
                    return self.take_whole(response, answer, &route, changed).await;
                }
                (Action::Overtake, _) => {
                    // It sends no parts.
                    self.alone = true;
                    self.store.overtake()?;
                    self.take(response, answer.length).await?;
                    return self.end(have);
                }
                (Action::Append { count, total }, Ask::Rest { from, .. }) => {
                    if self.overlaps(&mut response, have - from).await? {
                        return self
                            .append(response, count - (have - from).min(count), total)
                            .await;
                    }
                    self.start_over(Mismatch::Overlap);
                    question = Ask::Whole;
                }
                (Action::Finished, _) => return Ok(Some(End::Whole)),
                (Action::AskPlainly, _) => {
                    question = Ask::Rest {
                        from: have,
                        if_range: None,
                    }
                }
                (Action::StartOver(mismatch), _) => {
                    self.start_over(mismatch);
                    question = Ask::Whole;
                }
                (Action::Refused | Action::Append { .. }, _) => {
                    let error = self.asking.refusal(response, &route).await;
                    let expired = matches!(
                        error,
                        DownloadError::Status {
                            status: 403 | 410,
                            ..
                        }
                    );
                    if !expired || have == 0 || !route.is_redirected() || self.renewed {
                        return Err(error);
                    }
                    // Signed links expire: the first URL leads to a new one.
                    self.renewed = true;
                }
            }
        }
    }

    /// Takes the file from its start.
    async fn take_whole(
        &mut self,
        response: Response,
        answer: Answer,
        route: &Route,
        changed: bool,
    ) -> Result<Option<End>, DownloadError> {
        match self.codings(&response, &answer) {
            None => {
                self.begin(answer.known, route, changed)?;
                self.take(response, answer.length).await?;
            }
            Some(codings) => {
                self.begin(answer.known.decoded(), route, changed)?;
                let body = Decoded::new(response, &codings).map_err(HttpError::from_io)?;
                self.take(body, None).await?;
            }
        }
        self.end(0)
    }

    /// How a body is compressed that is to be unpacked. An empty one is no compressed one, though
    /// some servers say so.
    fn codings(&self, response: &Response, answer: &Answer) -> Option<Vec<Coding>> {
        let wanted = self.asking.shared.config.compressed && answer.length != Some(0);
        let codings = wanted.then(|| codings(response.headers("content-encoding")))?;
        codings.filter(|codings| !codings.is_empty())
    }

    /// Whether the file that an answer tells of is there already.
    fn needless(&self, answer: &Answer) -> Option<End> {
        match &self.needless {
            Needless::Same(_) if answer.status == 304 => Some(None),
            Needless::Same(file) if answer.status == 200 => file.is(&answer.known).then_some(None),
            Needless::Finished(part) if answer.status == 200 => {
                part.finished_before(&answer.known).map(Some)
            }
            _ => None,
        }
        .map(|there| End::Needless { there })
    }

    fn start_over(&self, mismatch: Mismatch) {
        warn!(url = %shown(self.url()), "cannot go on with what is here, starting over: {mismatch}");
    }

    /// Takes the file for another than what is there, and for one that is not here yet.
    fn begin(&mut self, known: Known, route: &Route, changed: bool) -> Result<(), DownloadError> {
        if changed {
            warn!(url = %shown(self.url()), "changed on the server, starting over");
        }
        if let Some(encoding) = &known.encoding {
            // The bytes are saved as they come: that should surprise nobody later.
            let encoding = Escaped(encoding.as_bytes());
            warn!(url = %shown(route.url()), %encoding, "saved as it came, still encoded");
        }
        let lasting = self.lasting(known.clone());
        self.store
            .begin(State::new(self.first, route.url(), lasting))?;
        (self.known, self.in_run) = (Some(known), true);
        Ok(())
    }

    /// Whether an answer begins with the last `count` bytes that are there.
    async fn overlaps(&self, response: &mut Response, count: u64) -> Result<bool, DownloadError> {
        let here = self
            .store
            .tail(count)
            .map_err(|error| self.store.failed(error))?;
        let mut theirs = Vec::with_capacity(here.len());
        let read = response
            .take(here.len() as u64)
            .read_to_end(&mut theirs)
            .await;
        read.map_err(HttpError::from_io)?;
        Ok(here == theirs)
    }

    async fn append(
        &mut self,
        response: Response,
        count: u64,
        total: Option<u64>,
    ) -> Result<Option<End>, DownloadError> {
        self.store.append();
        if let Some(known) = &mut self.known {
            known.total = total;
        }
        if let (true, Some(known)) = (self.store.is_mixed(), &self.known) {
            self.store.learn(self.lasting(known.clone()));
        }
        let before = self.store.length();
        self.take(response.take(count), Some(count)).await?;
        let have = self.store.length();
        if have == before && Some(have) != total {
            return Err(DownloadError::Nothing);
        }
        Ok((Some(have) == total).then_some(End::Whole))
    }

    /// What follows on a whole body, before which `race` bytes were there: where several
    /// connections have taken it, something may be missing still.
    fn end(&self, before: u64) -> Result<Option<End>, DownloadError> {
        match self.store.has_gaps(self.total()) {
            false => Ok(Some(End::Whole)),
            true if self.store.length() == before => Err(DownloadError::Nothing),
            true => Ok(None),
        }
    }

    fn condition(&self) -> Option<&str> {
        self.known.as_ref()?.condition()
    }

    fn total(&self) -> Option<u64> {
        self.known.as_ref().and_then(|known| known.total)
    }

    /// Whether several connections may fetch this file: its version must be certain.
    fn splits(&self) -> bool {
        let is_wanted = self.asking.shared.config.split.get() > 1 && !self.alone;
        is_wanted && self.condition().is_some() && self.store.takes_parts()
    }

    /// Takes a body, of `length` bytes if that is known.
    async fn take(
        &mut self,
        body: impl Source + Send,
        length: Option<u64>,
    ) -> Result<(), DownloadError> {
        let (total, tell, start) = (self.total(), &self.tell, self.store.position());
        let limit = self.asking.shared.config.max_size.unwrap_or(u64::MAX);
        if total.is_some_and(|total| total > limit) {
            return Err(DownloadError::TooLarge { limit });
        }
        // Behind where it goes on there may be bytes that are here already.
        let beyond = self.store.beyond(total);
        tell(Event::Answered {
            from: start + beyond,
            length: total,
        });
        if let (true, Some(known), Some(length)) = (self.splits(), &self.known, length)
            && let Some(server) = &self.server
            && let mirrors = if self.apart {
                &[]
            } else {
                self.mirrors.as_slice()
            }
            && let checksum = self.checksum.as_deref()
            && let origins = Origins::new(self.asking, server, known, mirrors, checksum.is_some())
            && let Some(segments) = Segments::new(origins, checksum, known, &self.store, tell)
        {
            self.alone = segments.run(body, start + length).await?;
            return Ok(());
        }
        // Behind a gap are bytes that are here already.
        let gap = self.store.gap(total);
        let length = length.map(|length| length.min(gap));
        // One byte more shows that there are too many.
        let body = body.take(limit.saturating_sub(start).saturating_add(1).min(gap));
        let body = Paced::new(
            body,
            self.asking.shared.config.slowest,
            self.asking.shares(),
        );
        let received = |at| {
            tell(Event::Received {
                position: at + beyond,
            })
        };
        let body = Body::new(body, start, received);
        let store = Arc::clone(&self.store);
        let taken = match store.is_file() {
            true => body.save(length, store).await,
            false => body.send(store).await,
        };
        taken.map_err(|error| error.into_error(&self.store))?;
        if self.store.position() > limit {
            Err(DownloadError::TooLarge { limit })
        } else {
            Ok(())
        }
    }

    /// What the server has told about the file.
    pub(crate) fn known(&self) -> Known {
        self.known.clone().unwrap_or_default()
    }

    /// The fields that a question adds to the request.
    fn fields(&self, question: &Ask) -> Vec<(String, String)> {
        match question {
            Ask::Whole => {
                let accepted = self.asking.shared.config.compressed.then(accept);
                let condition = match &self.needless {
                    Needless::Same(file) => Some(file.condition()),
                    Needless::Never | Needless::Finished(_) => None,
                };
                condition.into_iter().chain(accepted).collect()
            }
            Ask::Rest { from, if_range } => range(*from, None, if_range.as_deref()),
        }
    }
}
