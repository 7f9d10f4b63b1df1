use parallax_connect::{
    ConnectorError, EmitError, Entity, EntityKey, Record, StepContext, relationship,
};

/// Longest display name that the SDK accepts, in bytes.
const DISPLAY_NAME_BYTES: usize = 1024;

/// Emits a record, or goes on without it if it breaks a rule: the context has then counted it and
/// knows what must not be deleted for it.
pub(crate) fn emit(ctx: &StepContext, record: impl Into<Record>) -> Result<(), ConnectorError> {
    match ctx.emit(record) {
        Ok(()) | Err(EmitError::Rejected { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Emits an entity of the host, and that the host has it.
pub(crate) fn emit_of_host(ctx: &StepContext, entity: Entity) -> Result<(), ConnectorError> {
    let key = entity.key().clone();
    emit(ctx, entity)?;
    emit(ctx, relationship(host_key(ctx), "HAS", key))
}

/// Returns the key of the `host` entity: the account, because a host name changes and repeats.
pub(crate) fn host_key(ctx: &StepContext) -> EntityKey {
    EntityKey::new("host", ctx.account_id())
}

/// Cuts a text from outside to the length of a display name, which would else cost the record.
pub(crate) fn display_name(text: &str) -> String {
    let fits = |&(start, c): &(usize, char)| start + c.len_utf8() <= DISPLAY_NAME_BYTES;
    text.char_indices()
        .take_while(fits)
        .map(|(_, c)| c)
        .collect()
}

/// Returns a text, or `None` if it is empty.
pub(crate) fn unless_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_name_is_cut_between_characters() {
        assert_eq!(display_name("ann"), "ann");
        assert_eq!(display_name(&"é".repeat(2000)), "é".repeat(512));
        assert_eq!(display_name(&format!("a{}", "é".repeat(2000))).len(), 1023);
    }
}
