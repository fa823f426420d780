//! The responses within a WebSocket: each is accounted for like an exchange of
//! its own, and what the client asks for is looked at before a vendor sees it.
//!
//! What a vendor says is read before it is passed on: a response whose end the
//! client has seen is one whose record is written, whoever dies then.

use bytes::{Bytes, BytesMut};
use clawgate_shared::dialect::Protocol;
use clawgate_shared::token::masked;

use super::admit;
use super::budget::Held;
use super::pass::Pass;
use super::prepare::Prepared;
use super::record::Facts;
use super::reject::Refusal;
use super::settle::{Outcome, Settlement};
use super::ties::key_of;
use crate::wire::Report;
use crate::wire::dialog::{self, Heard};
use crate::wire::error::Code;
use crate::wire::references::{Unreadable, Wanted, references};
use crate::wire::websocket::{Event, Frames};

/// Longest message that is read. A longer one passes unread, unless it has to
/// be looked at first.
const MAX_MESSAGE: usize = 4 << 20;
/// Control frames within a message that is looked at, with it.
const MAX_WAITING: usize = MAX_MESSAGE + (64 << 10);
/// Responses of one session that run at one time; a further one ends the oldest
/// one's account.
const MAX_OPEN: usize = 32;

/// One session's accounts.
pub struct Talk<'a> {
    protocol: Protocol,
    vendor: String,
    /// Of the vendor and of the client.
    heard: Frames,
    said: Frames,
    /// What the client sent of a message that is not allowed to pass yet.
    waiting: BytesMut,
    check: Check,
    open: Vec<Running<'a>>,
    /// What writes down what is said, as far as the vendor told.
    transcriber: String,
    held: Held<'a>,
    counted: usize,
}

/// What is looked at in a client's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Nothing: they pass as they come.
    Nothing,
    /// The first, which names the model.
    Setup,
    /// All, because they may name what is in the vendor's account.
    Things,
    /// All, because the bot may not use every model, or quotas not count some.
    All { named: bool },
}

impl Check {
    /// Nothing may pass that was not looked at.
    const fn all(self) -> bool {
        matches!(self, Self::Things | Self::All { .. })
    }
}

struct Running<'a> {
    id: String,
    settlement: Settlement<'a>,
    /// The turn is over, its counts have not come.
    over: bool,
}

/// What came of the vendor's bytes.
#[derive(Debug)]
pub struct Stop {
    /// So much of the chunk still goes to the client.
    pub pass: usize,
    /// Why the session ends then.
    pub refusal: Refusal,
}

impl<'a> Talk<'a> {
    /// Of a session that has begun.
    pub fn new(settlement: &Settlement<'a>, prepared: &Prepared<'_>) -> Self {
        let protocol = prepared.resolved.route.protocol;
        let bot = settlement.facts.bot.as_deref();
        let restricted = bot.is_some_and(|bot| {
            !bot.allowed_models.is_empty() || admit::counts_content(bot, admit::key_of(bot, &settlement.facts))
        });
        let check = match protocol {
            _ if restricted => Check::All { named: !settlement.facts.model.is_empty() },
            Protocol::GeminiLive => Check::Setup,
            Protocol::OpenAiResponses => Check::Things,
            _ => Check::Nothing,
        };
        let limit = |read| if read { MAX_MESSAGE } else { 0 };
        Self {
            protocol,
            vendor: prepared.vendor.slug.to_string(),
            heard: Frames::new(limit(dialog::is_read(protocol))),
            said: Frames::new(limit(check != Check::Nothing)),
            waiting: BytesMut::new(),
            check,
            open: Vec::new(),
            transcriber: String::new(),
            held: settlement.services().bodies.hold(),
            counted: 0,
        }
    }

    /// Frames of the vendor, for whoever wants to put one in.
    pub const fn to_client(&self) -> &Frames {
        &self.heard
    }

    /// Frames of the client.
    pub const fn to_vendor(&self) -> &Frames {
        &self.said
    }

    /// Whether a frame of ours would fit in there. What waits has not gone on.
    pub fn vendor_takes_a_frame(&self) -> bool {
        !self.said.is_lost() && (self.check != Check::Nothing || self.said.between_frames())
    }

    /// Looks at what the client sent; returns what may go on.
    ///
    /// # Errors
    /// It asks for what the bot may not have.
    pub async fn client_said(&mut self, tunnel: &mut Settlement<'a>, chunk: Bytes) -> Result<Bytes, Refusal> {
        let before = self.waiting.len();
        if self.check != Check::Nothing {
            self.waiting.extend_from_slice(&chunk);
        }
        let (mut at, mut pass) = (0, 0);
        while let Some(event) = self.said.next(&chunk, &mut at) {
            let asked = match event {
                Event::Message(json) if self.check != Check::Nothing => {
                    Some((dialog::asked(json), things(self.protocol, json)?))
                }
                Event::Oversize if self.check.all() => return Err(too_large()),
                Event::Message(_) | Event::Oversize | Event::Control => None,
            };
            if let Some((asked, things)) = asked {
                self.check = allowed(self.check, self.protocol, &mut tunnel.facts, asked)?;
                reaches(tunnel, &self.vendor, &things).await?;
            }
            if self.said.between_messages() {
                pass = before + at;
            }
            if self.check == Check::Nothing {
                self.said.ignore_messages();
            }
        }
        if self.said.is_lost() && self.check.all() {
            return Err(Refusal::new(Code::BadRequest, "the client's bytes are no WebSocket without extensions"));
        }
        self.count(|talk| &mut talk.said);
        if self.check == Check::Nothing || self.said.is_lost() {
            return Ok(if self.waiting.is_empty() { chunk } else { self.waiting.split().freeze() });
        }
        let pass = self.waiting.split_to(pass.min(self.waiting.len())).freeze();
        if self.waiting.len() <= MAX_WAITING {
            return Ok(pass);
        }
        if self.check.all() {
            return Err(too_large());
        }
        self.check = Check::Nothing;
        self.said.ignore_messages();
        let mut all = BytesMut::from(&pass[..]);
        all.extend_from_slice(&self.waiting.split());
        Ok(all.freeze())
    }

    /// Reads what the vendor sent, before it is passed on.
    ///
    /// # Errors
    /// A response began that may not.
    pub async fn vendor_said(&mut self, tunnel: &Settlement<'a>, chunk: &[u8]) -> Result<(), Stop> {
        let mut at = 0;
        while let Some(event) = self.heard.next(chunk, &mut at) {
            let Event::Message(json) = event else { continue };
            if !dialog::is_read(self.protocol) {
                continue;
            }
            let heard = dialog::heard(self.protocol, &self.vendor, json);
            self.take(tunnel, heard).await.map_err(|refusal| Stop { pass: at, refusal })?;
        }
        self.count(|talk| &mut talk.heard);
        Ok(())
    }

    async fn take(&mut self, tunnel: &Settlement<'a>, heard: Heard) -> Result<(), Refusal> {
        if let Some(model) = heard.transcriber {
            self.transcriber = masked(&model).into_owned();
        }
        if let Some(report) = heard.transcribed {
            let model = self.transcriber.clone();
            self.begin(tunnel, String::new(), model).await?;
            self.end_last(None, report);
        }
        if let Some(id) = heard.began
            && !self.open.iter().any(|running| running.id == id && !running.over)
        {
            self.begin(tunnel, id, tunnel.facts.model.clone()).await?;
        }
        if heard.output {
            for running in &mut self.open {
                let facts = &mut running.settlement.facts;
                facts.ttft_micros = facts.ttft_micros.or(Some(facts.elapsed_micros()));
            }
        }
        if let Some(ended) = heard.ended {
            match self.open.iter().position(|running| running.id == ended.id) {
                Some(at) => {
                    let running = self.open.remove(at);
                    self.open.push(running);
                }
                None => self.begin(tunnel, ended.id, tunnel.facts.model.clone()).await?,
            }
            self.end_last(ended.failed, ended.report);
        } else if heard.turn_over {
            self.open.iter_mut().for_each(|running| running.over = true);
        }
        Ok(())
    }

    /// Opens a response's account.
    async fn begin(&mut self, tunnel: &Settlement<'a>, id: String, model: String) -> Result<(), Refusal> {
        // One whose turn was over without a word of what it used stays so.
        while let Some(at) = self.open.iter().position(|running| running.over) {
            self.open.remove(at).settlement.settle(Outcome::Ok, None);
        }
        if self.open.len() >= MAX_OPEN {
            self.open.remove(0).settlement.settle(Outcome::Interrupted, None);
        }
        let mut settlement = Settlement::new(tunnel.services(), tunnel.facts.of_response(model));
        if self.protocol == Protocol::OpenAiResponses && !id.is_empty() {
            settlement.keep(vec![id.clone()]);
        }
        let admitted = admit_response(&mut settlement).await;
        // The vendor is at work on it, whatever we think of that.
        settlement.owed = true;
        if let Err(refusal) = admitted {
            let told = Refusal::new(refusal.code, refusal.message.clone());
            settlement.settle(Outcome::Interrupted, Some(told));
            return Err(refusal);
        }
        self.open.push(Running { id, settlement, over: false });
        Ok(())
    }

    fn end_last(&mut self, failed: Option<String>, report: Report) {
        let Some(Running { mut settlement, .. }) = self.open.pop() else { return };
        settlement.note = failed.as_ref().map(|code| format!("the response failed at the vendor: {code}"));
        settlement.facts.waited_micros = settlement.facts.elapsed_micros();
        settlement.usage = report.usage;
        settlement.settle(if failed.is_some() { Outcome::UpstreamError } else { Outcome::Ok }, None);
    }

    /// The session is over: so is everything in it.
    pub fn end(self, outcome: Outcome) {
        let rest = if outcome == Outcome::Ok { Outcome::Interrupted } else { outcome };
        for Running { mut settlement, over, .. } in self.open {
            settlement.facts.waited_micros = settlement.facts.elapsed_micros();
            settlement.settle(if over { Outcome::Ok } else { rest }, None);
        }
    }

    /// Counts what is held of messages; one for which there is no room passes
    /// unread.
    fn count(&mut self, frames: impl Fn(&mut Self) -> &mut Frames) {
        let now = self.heard.held() + self.said.held() + self.waiting.capacity();
        if now <= self.counted {
            self.held.shrink(self.counted - now);
        } else if !self.held.grow(now - self.counted) {
            frames(self).give_up_message();
        }
        self.counted = now;
    }
}

/// Takes what rates and quotas on requests want of a response, and writes its
/// OPEN record.
async fn admit_response(settlement: &mut Settlement<'_>) -> Result<(), Refusal> {
    let Some(bot) = settlement.facts.bot.clone() else { return Ok(()) };
    let services = settlement.services();
    let of_key = admit::key_of(&bot, &settlement.facts).map_or(&[][..], |key| &key.quotas);
    settlement.pass = Pass::within(&bot)?;
    settlement.permit = admit::request(services, &bot.quotas, &settlement.facts.model).await?;
    settlement.key_permit = admit::request(services, of_key, &settlement.facts.model).await?;
    settlement.open()
}

/// What a message names in the vendor's account.
fn things(protocol: Protocol, json: &[u8]) -> Result<Vec<String>, Refusal> {
    if protocol != Protocol::OpenAiResponses {
        return Ok(Vec::new());
    }
    let refused = |error: Unreadable| Refusal::new(Code::BadRequest, error.to_string());
    references(json, Wanted { account: false, items: true }).map_err(refused)
}

/// Whether the session's key is the one that made what a message names.
async fn reaches(tunnel: &Settlement<'_>, vendor: &str, things: &[String]) -> Result<(), Refusal> {
    let (Some(bot), false) = (tunnel.facts.bot.as_deref(), things.is_empty()) else { return Ok(()) };
    let key = key_of(tunnel.services(), bot, vendor, things).await?;
    if tunnel.facts.key.as_ref().is_some_and(|(used, _)| *used == key) {
        return Ok(());
    }
    let text = "the message names something that another provider key made than the one this session has; send it as \
                a POST request, which goes to that key";
    Err(Refusal::new(Code::BadRequest, text))
}

fn too_large() -> Refusal {
    let text = "a message is larger than what can be looked at, and this bot's messages have to be";
    Refusal::new(Code::RequestTooLarge, text)
}

/// Whether a message of the client may pass; what is looked at from then on.
fn allowed(
    check: Check,
    protocol: Protocol,
    tunnel: &mut Facts,
    asked: Option<dialog::Asked>,
) -> Result<Check, Refusal> {
    let setup = protocol == Protocol::GeminiLive;
    if check == Check::Things {
        let unread = || Refusal::new(Code::BadRequest, "the message is not JSON that can be looked through");
        return asked.map(|_| check).ok_or_else(unread);
    }
    let Check::All { named } = check else {
        if let Some(model) = asked.and_then(|asked| asked.models.into_iter().next()).filter(|_| setup) {
            tunnel.model = masked(&model).into_owned();
        }
        return Ok(Check::Nothing);
    };
    let Some(asked) = asked else {
        return Err(Refusal::new(Code::BadRequest, "the message is not JSON that says its model where it can be seen"));
    };
    let Some(bot) = tunnel.bot.clone() else { return Ok(check) };
    for model in &asked.models {
        if !bot.allows_model(&tunnel.vendor, model) {
            let text = format!("this bot may not use model {:?}", masked(model));
            return Err(Refusal::new(Code::ModelNotAllowed, text));
        }
        if admit::counts_content_of(&bot, admit::key_of(&bot, tunnel), model) {
            return Err(admit::no_session());
        }
    }
    // Where each message names its own, the handshake's is not asked for.
    let each = protocol == Protocol::OpenAiResponses && asked.response;
    if asked.models.is_empty() && (each || !named) {
        let text = "this bot may use only some models, and the message names none";
        return Err(Refusal::new(Code::ModelMissing, text));
    }
    if let Some(model) = asked.models.first().filter(|_| setup && !named) {
        tunnel.model = masked(model).into_owned();
    }
    Ok(Check::All { named: named || !asked.models.is_empty() })
}
