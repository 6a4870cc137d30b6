//! News of the statuses of COMPARE AND WRITEs (W6), as they travel.

use holdfast_proto::replication as pb;
use holdfast_types::InitiatorTag;
use pb::status_news::News;

use super::wire::{WireError, halves, join, name_in, name_out, pos_in, pos_out, range_in, range_out};
use crate::core::api::{StatusNews, Unconfirmed};

pub(super) fn statuses_out(news: Vec<StatusNews>) -> pb::Statuses {
    let one = |news| match news {
        StatusNews::Unconfirmed(what) => News::Unconfirmed(pb::Unconfirmed {
            pos: Some(pos_out(what.pos)),
            name: Some(name_out(what.name)),
            initiator_high: halves(what.initiator.0).0,
            initiator_low: halves(what.initiator.0).1,
            range: Some(range_out(what.range)),
            expected: what.expected.to_vec().into(),
        }),
        StatusNews::Acknowledged(name) => News::Acknowledged(name_out(name)),
        StatusNews::Ended(session) => {
            News::Ended(name_out(holdfast_types::CommandName { session, cmd_sn: 0 }))
        }
    };
    let news = news.into_iter().map(|news| pb::StatusNews {
        news: Some(one(news)),
    });
    pb::Statuses { news: news.collect() }
}

pub(super) fn statuses_in(statuses: pb::Statuses) -> Result<Vec<StatusNews>, WireError> {
    let one = |news: pb::StatusNews| {
        Ok(match news.news.ok_or(WireError("news of a status"))? {
            News::Unconfirmed(what) => StatusNews::Unconfirmed(Unconfirmed {
                pos: pos_in(what.pos)?,
                name: name_in(what.name)?,
                initiator: InitiatorTag(join(what.initiator_high, what.initiator_low)),
                range: range_in(what.range)?,
                expected: <[u8; 16]>::try_from(what.expected.as_ref())
                    .map_err(|_| WireError("hash of what was expected"))?,
            }),
            News::Acknowledged(name) => StatusNews::Acknowledged(name_in(Some(name))?),
            News::Ended(session) => StatusNews::Ended(name_in(Some(session))?.session),
        })
    };
    statuses.news.into_iter().map(one).collect()
}
