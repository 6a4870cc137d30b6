use holdfast_types::Isid;
use proptest::prelude::*;

use super::*;

prop_compose! {
    fn numbers()(cmd_sn: u32, exp_stat_sn: u32) -> Numbers {
        Numbers { cmd_sn: Sn(cmd_sn), exp_stat_sn: Sn(exp_stat_sn) }
    }
}

prop_compose! {
    fn target_numbers()(stat_sn: u32, exp_cmd_sn: u32, max_cmd_sn: u32) -> TargetNumbers {
        TargetNumbers { stat_sn: Sn(stat_sn), exp_cmd_sn: Sn(exp_cmd_sn), max_cmd_sn: Sn(max_cmd_sn) }
    }
}

fn direction() -> impl Strategy<Value = Direction> {
    prop::sample::select(vec![
        Direction::None,
        Direction::Read,
        Direction::Write,
        Direction::Both,
    ])
}

fn residual() -> impl Strategy<Value = Residual> {
    prop_oneof![
        Just(Residual::None),
        any::<u32>().prop_map(Residual::Under),
        any::<u32>().prop_map(Residual::Over),
    ]
}

prop_compose! {
    fn nop_out()(immediate: bool, lun: u64, itt: u32, ttt: u32, numbers in numbers()) -> NopOut {
        NopOut { immediate, lun, itt, ttt, numbers }
    }
}

prop_compose! {
    fn command()(
        immediate: bool, last: bool, direction in direction(), attribute in 0u8..8, lun: u64, itt: u32,
        expected_length: u32, numbers in numbers(), cdb: [u8; 16],
    ) -> ScsiCommand {
        ScsiCommand { immediate, last, direction, attribute: TaskAttribute(attribute), lun, itt, expected_length, numbers, cdb }
    }
}

prop_compose! {
    fn task()(
        immediate: bool, function in 0u8..0x80, lun: u64, itt: u32, referenced: u32, numbers in numbers(),
        ref_cmd_sn: u32, exp_data_sn: u32,
    ) -> TaskRequest {
        TaskRequest {
            immediate, function: TaskFunction(function), lun, itt, referenced, numbers, ref_cmd_sn: Sn(ref_cmd_sn), exp_data_sn,
        }
    }
}

prop_compose! {
    fn login()(
        transit: bool, more: bool, current in 0u8..4, next in 0u8..4, version_max: u8, version_min: u8, isid: [u8; 6],
        tsih: u16, itt: u32, cid: u16, numbers in numbers(),
    ) -> LoginRequest {
        LoginRequest {
            transit, more, current: Stage(current), next: Stage(next), version_max, version_min, isid: Isid(isid), tsih, itt,
            cid, numbers,
        }
    }
}

prop_compose! {
    fn text()(
        immediate: bool, last: bool, more: bool, lun: u64, itt: u32, ttt: u32, numbers in numbers(),
    ) -> TextRequest {
        TextRequest { immediate, last, more, lun, itt, ttt, numbers }
    }
}

prop_compose! {
    fn data_out()(
        last: bool, lun: u64, itt: u32, ttt: u32, exp_stat_sn: u32, data_sn: u32, offset: u32,
    ) -> DataOut {
        DataOut { last, lun, itt, ttt, exp_stat_sn: Sn(exp_stat_sn), data_sn, offset }
    }
}

prop_compose! {
    fn logout()(immediate: bool, reason in 0u8..0x80, itt: u32, cid: u16, numbers in numbers()) -> LogoutRequest {
        LogoutRequest { immediate, reason: LogoutReason(reason), itt, cid, numbers }
    }
}

prop_compose! {
    fn snack()(
        kind in 0u8..16, lun: u64, itt: u32, tag: u32, exp_stat_sn: u32, begin: u32, length: u32,
    ) -> Snack {
        Snack { kind, lun, itt, tag, exp_stat_sn: Sn(exp_stat_sn), begin, length }
    }
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        nop_out().prop_map(Request::from),
        command().prop_map(Request::from),
        task().prop_map(Request::from),
        login().prop_map(Request::from),
        text().prop_map(Request::from),
        data_out().prop_map(Request::from),
        logout().prop_map(Request::from),
        snack().prop_map(Request::from),
    ]
}

prop_compose! {
    fn scsi_response()(
        read_residual in residual(), residual in residual(), response: u8, status: u8, itt: u32, snack_tag: u32,
        numbers in target_numbers(), exp_data_sn: u32,
    ) -> ScsiResponse {
        ScsiResponse {
            read_residual, residual, response: ServiceResponse(response), status: ScsiStatus(status), itt, snack_tag, numbers,
            exp_data_sn,
        }
    }
}

prop_compose! {
    fn login_response()(
        transit: bool, more: bool, current in 0u8..4, next in 0u8..4, version_max: u8, version_active: u8, isid: [u8; 6],
        tsih: u16, itt: u32, numbers in target_numbers(), status: u16,
    ) -> LoginResponse {
        LoginResponse {
            transit, more, current: Stage(current), next: Stage(next), version_max, version_active, isid: Isid(isid), tsih, itt,
            numbers, status: LoginStatus(status),
        }
    }
}

prop_compose! {
    fn data_in()(
        last: bool, acknowledge: bool, status in prop::option::of((any::<u8>(), residual())), lun: u64, itt: u32, ttt: u32,
        numbers in target_numbers(), data_sn: u32, offset: u32,
    ) -> DataIn {
        let status = status.map(|(status, residual)| (ScsiStatus(status), residual));
        DataIn { last, acknowledge, status, lun, itt, ttt, numbers, data_sn, offset }
    }
}

prop_compose! {
    fn r2t()(
        lun: u64, itt: u32, ttt: u32, numbers in target_numbers(), r2t_sn: u32, offset: u32, length: u32,
    ) -> R2t {
        R2t { lun, itt, ttt, numbers, r2t_sn, offset, length }
    }
}

fn small_response() -> impl Strategy<Value = Response> {
    let common = (
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        target_numbers(),
        any::<[u16; 3]>(),
        any::<[u8; 2]>(),
    );
    (common, 0u8..6).prop_map(
        |((lun, itt, ttt, numbers, parameters, [a, b]), kind)| match kind {
            0 => NopIn {
                lun,
                itt,
                ttt,
                numbers,
            }
            .into(),
            1 => TaskResponse {
                result: TaskResult(a),
                itt,
                numbers,
            }
            .into(),
            2 => TextResponse {
                last: a > 9,
                more: b > 9,
                lun,
                itt,
                ttt,
                numbers,
            }
            .into(),
            3 => LogoutResponse {
                result: LogoutResult(a),
                itt,
                numbers,
                time2wait: parameters[0],
                time2retain: parameters[1],
            }
            .into(),
            4 => AsyncMessage {
                lun,
                numbers,
                event: AsyncEvent(a),
                vendor: b,
                parameters,
            }
            .into(),
            _ => Reject {
                reason: RejectReason(a),
                numbers,
                data_sn: ttt,
            }
            .into(),
        },
    )
}

fn response() -> impl Strategy<Value = Response> {
    prop_oneof![
        6 => small_response(),
        1 => scsi_response().prop_map(Response::from),
        1 => login_response().prop_map(Response::from),
        1 => data_in().prop_map(Response::from),
        1 => r2t().prop_map(Response::from),
    ]
}

proptest! {
    #[test]
    fn requests_read_back_as_written(pdu in request()) {
        prop_assert_eq!(Request::parse(&pdu.emit()), Some(pdu));
    }

    #[test]
    fn responses_read_back_as_written(pdu in response()) {
        prop_assert_eq!(Response::parse(&pdu.emit()), Some(pdu));
    }

    #[test]
    fn any_header_can_be_read(bytes in prop::array::uniform32(any::<u8>()), more in prop::array::uniform16(any::<u8>())) {
        let mut header = [0; BHS_LEN];
        header[..32].copy_from_slice(&bytes);
        header[32..].copy_from_slice(&more);
        let bhs = Bhs(header);
        // What is read and written again reads the same: only reserved fields are lost.
        if let Some(pdu) = Request::parse(&bhs) {
            prop_assert_eq!(Request::parse(&pdu.emit()), Some(pdu));
        }
        if let Some(pdu) = Response::parse(&bhs) {
            prop_assert_eq!(Response::parse(&pdu.emit()), Some(pdu));
        }
        let text = format!("{bhs:?}");
        prop_assert!(!text.is_empty());
    }

    #[test]
    fn additional_headers_read_back_as_written(
        tail in prop::collection::vec(any::<u8>(), 0..=244),
        read_length in prop::option::of(any::<u32>()),
    ) {
        let extra = Extra { cdb_tail: tail, read_length };
        let bytes = extra.emit();
        prop_assert_eq!(bytes.len() % 4, 0);
        prop_assert_eq!(Extra::parse(&bytes), Ok(extra));
    }

    #[test]
    fn any_additional_headers_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        drop(Extra::parse(&bytes));
    }
}

/// A READ(10) as an initiator sends it, byte by byte (RFC 7143, 11.3).
#[test]
fn scsi_command_is_laid_out_as_the_standard_draws_it() {
    let mut cdb = [0; 16];
    cdb[0] = 0x28;
    let pdu = ScsiCommand {
        immediate: false,
        last: true,
        direction: Direction::Read,
        attribute: TaskAttribute::SIMPLE,
        lun: 0x0001_0000_0000_0000,
        itt: 0x0a0b_0c0d,
        expected_length: 4096,
        numbers: Numbers {
            cmd_sn: Sn(7),
            exp_stat_sn: Sn(9),
        },
        cdb,
    };
    let mut wanted = [0; BHS_LEN];
    wanted[..2].copy_from_slice(&[0x01, 0xc1]);
    wanted[9] = 1;
    wanted[16..20].copy_from_slice(&[0x0a, 0x0b, 0x0c, 0x0d]);
    wanted[22] = 0x10;
    wanted[27] = 7;
    wanted[31] = 9;
    wanted[32] = 0x28;
    assert_eq!(pdu.emit().0, wanted);
}

#[test]
fn login_flags_are_laid_out_as_the_standard_draws_them() {
    let pdu = LoginRequest {
        transit: true,
        more: false,
        current: Stage::OPERATIONAL,
        next: Stage::FULL_FEATURE,
        version_max: 0,
        version_min: 0,
        isid: Isid([0x40, 0, 1, 0x37, 0, 0]),
        tsih: 0,
        itt: 1,
        cid: 2,
        numbers: Numbers::default(),
    };
    let bhs = pdu.emit();
    assert_eq!(bhs.0[..2], [0x43, 0x87]);
    assert_eq!(bhs.0[8..14], [0x40, 0, 1, 0x37, 0, 0]);
    assert_eq!(bhs.0[20..22], [0, 2]);
}

#[test]
fn data_in_with_status_and_underflow_is_laid_out_as_the_standard_draws_it() {
    let pdu = DataIn {
        last: true,
        acknowledge: false,
        status: Some((ScsiStatus::GOOD, Residual::Under(512))),
        lun: 0,
        itt: 1,
        ttt: NO_TAG,
        numbers: TargetNumbers::default(),
        data_sn: 0,
        offset: 0,
    };
    let bhs = pdu.emit();
    assert_eq!(bhs.0[..2], [0x25, 0x83]);
    assert_eq!(bhs.0[44..], [0, 0, 2, 0]);
}

#[test]
fn an_extended_cdb_counts_its_reserved_byte() {
    // RFC 7143, 11.2.2.3: AHSLength is the CDB length less 15.
    let extra = Extra {
        cdb_tail: vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        read_length: None,
    };
    assert_eq!(extra.emit()[..4], [0, 17, 1, 0]);
    assert_eq!(extra.emit().len(), 20);
}

#[test]
fn bad_additional_headers_say_why() {
    assert_eq!(Extra::parse(&[0, 1]), Err(AhsError::Length));
    assert_eq!(Extra::parse(&[0, 9, 1, 0]), Err(AhsError::Length));
    assert_eq!(Extra::parse(&[0, 2, 2, 0, 0, 0, 0, 0]), Err(AhsError::Length));
    assert_eq!(Extra::parse(&[0, 1, 9, 0]), Err(AhsError::Type(9)));
    let twice = [0, 5, 2, 0, 0, 0, 0, 1, 0, 5, 2, 0, 0, 0, 0, 1];
    assert_eq!(Extra::parse(&twice), Err(AhsError::Twice(2)));
}

#[test]
fn residuals_follow_from_lengths() {
    assert_eq!(Residual::of(512, 512), Residual::None);
    assert_eq!(Residual::of(1024, 512), Residual::Under(512));
    assert_eq!(Residual::of(512, 1024), Residual::Over(512));
    assert_eq!(Residual::of(0, u64::MAX), Residual::Over(u32::MAX));
}

#[test]
fn unknown_numbers_are_kept() {
    assert_eq!(format!("{}", TaskFunction(99)), "0x63");
    assert_eq!(format!("{}", TaskFunction::ABORT_TASK), "ABORT TASK");
    assert_eq!(Request::parse(&Bhs::new(Opcode(0x1c), 0)), None);
}
