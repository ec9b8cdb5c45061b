# SPDX-License-Identifier: GPL-2.0-or-later
# What can be offered is read from --help, which is made of the option table: an option that this does not know does not
# exist.

# Mount options parted by commas, of which the last is completed: "lease=", "fsync=stage", "ro".
function __safewritefs_mount_options
    set -l before (commandline -ct | string replace -r '[^,]*$' '')
    set -l kernel 0
    for line in (safewritefs --help 2>/dev/null)
        switch $line
            case 'Passed on*'
                set kernel 1
            case 'Accepted*'
                set kernel 0
        end
        if test $kernel = 1
            for name in (string replace -r '^.*:' '' -- $line | string replace -a LABEL '' | string split -n ' ')
                printf '%s\tfor the kernel\n' "$before$name"
            end
        else if set -l parts (string match -r '^    ([a-z-]+=)(\S+) +(.*)$' -- $line)
            set -l values ''
            string match -q '*|*' -- $parts[3]; and set values (string split '|' -- $parts[3])
            for value in $values
                printf '%s\t%s\n' "$before$parts[2]$value" $parts[4]
            end
        end
    end
end

complete -c safewritefs -f -a '(__fish_complete_directories)'
complete -c safewritefs -s o -x -a '(__safewritefs_mount_options)' -d 'Mount options'
complete -c safewritefs -s f -l foreground -d 'Stay in the foreground'
complete -c safewritefs -s d -l debug -d 'Log debug messages'
complete -c safewritefs -l check -d 'Check the options, mount nothing'
complete -c safewritefs -s V -l version -d 'Print the version'
complete -c safewritefs -s h -l help -d 'Print the options'
complete -c safewritefs -s r -d 'Read-only'
complete -c safewritefs -s w -d 'Read-write'
complete -c safewritefs -s s -d 'Let unknown mount options pass'
complete -c safewritefs -s n
complete -c safewritefs -s v
