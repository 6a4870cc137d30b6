# On each Windows Server, once, as administrator; it restarts the computer when MPIO was not there.
Install-WindowsFeature -Name Multipath-IO
New-MSDSMSupportedHW -VendorId HOLDFAST -ProductId VDISK
# A disk whose paths are all gone is kept for two minutes, so that it outlives a restart of both nodes; errors are tried again for 30 s.
Set-MPIOSetting -NewPDORemovePeriod 120 -NewRetryCount 30 -NewRetryInterval 1 `
    -NewPathVerificationState Enabled -NewPathVerificationPeriod 10
