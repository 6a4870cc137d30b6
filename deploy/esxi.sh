# On each ESXi host, once, before the storage is added (tpgs_on: the rule takes every path that says it follows ALUA).
esxcli storage nmp satp rule add --vendor HOLDFAST --model VDISK --satp VMW_SATP_ALUA --psp VMW_PSP_RR \
    --claim-option tpgs_on --description "Holdfast"
# On the software adapter (here vmhba64): a silent path is asked after 5 s, given up after 5 s more, its commands move 5 s later.
esxcli iscsi adapter param set --adapter vmhba64 --key NoopOutInterval --value 5
esxcli iscsi adapter param set --adapter vmhba64 --key NoopOutTimeout --value 10
esxcli iscsi adapter param set --adapter vmhba64 --key RecoveryTimeout --value 10
