# SPDX-License-Identifier: GPL-2.0-or-later
# By the lines that --help begins with, "gc [--json] [--salvage-max SIZE] ... PATH", and by what --help says of commands.

# The lines; or what follows the words given, in those that begin with them.
function __safewritectl_usage
    safewritectl --help 2>/dev/null | string replace -rf '^(Usage:|  ) *safewritectl ([a-z].*)' '$2' |
        string replace -rf "^$argv" ''
end

# What an option has to be followed by, as "FILE"; nothing for other words.
function __safewritectl_value
    string match -q -- '--*' $argv; and safewritectl --help 2>/dev/null |
        string replace -rf '.*'(string escape --style=regex -- "$argv")' ([A-Z]+).*' '$1'
end

# The words before the cursor: the name of the command, which may be two words, then its operands.
function __safewritectl_words
    set -l words (commandline -opc)[2..]
    set -l skip 0
    test "$words[1]" = salvage; and set words "$words[1..2]" $words[3..]
    for word in $words
        if test $skip = 1
            set skip 0
        else if not string match -q -- '-*' $word
            echo -- $word
        else if test -n "$(__safewritectl_value $word)"
            set skip 1
        end
    end
end

# Where safewritefs is mounted, as the kernel says, for no mount is asked; if nothing of that fits, what else is given.
function __safewritectl_places
    set -l mounts
    for line in (cat /proc/self/mounts)
        set -l words (string split ' ' -- $line)
        test "$words[3]" = fuse.safewritefs; and set -a mounts (printf '%b' (string replace -a '\\' '\\0' -- $words[2]))
    end
    string match -r -- '^'(commandline -ct | string escape --style=regex)'.*' $mounts; or string join \n -- $argv
end

# Values of a member in the JSON that a command prints; a server that is away is not waited for.
function __safewritectl_json
    timeout 2 safewritectl $argv[2..] 2>/dev/null | string replace -rf ".*\"$argv[1]\": \"([\w.,:@%+-]+)\".*" '$1'
end

function __safewritectl_options
    set -l words (__safewritectl_words)
    __safewritectl_usage "$words[1] " | string match -ar -- '--[a-z-]+'
    echo -- --help
end

function __safewritectl_operands
    set -l words (__safewritectl_words)
    set -l usage (__safewritectl_usage "$words[1] ")
    if test (count $words) -lt 2
        if string match -q '*LOCK*' -- $usage
            __safewritectl_places (__fish_complete_path (commandline -ct))
        else if string match -q '*PATH*' -- $usage
            __safewritectl_places (__fish_complete_directories)
        end
    else
        string match -q '*ENTRY*' -- $usage; and __safewritectl_json entry salvage list --json $words[2]
        string match -q '*HOST*' -- $usage; and __safewritectl_json host status --json $words[2]
        string match -qr 'FILE\.\.\.|LOCK' -- $usage; and __safewritectl_files $words[2]
    end
end

# Files as they are called below the directory.
function __safewritectl_files
    set -l token (commandline -ct)
    if string match -q '/*' -- $token
        __fish_complete_path $token
    else
        for file in $argv[1]/$token*
            string replace -- "$argv[1]/" '' $file
        end
    end
end

function __safewritectl_wants
    contains -- "$(__safewritectl_value (commandline -opc)[-1])" $argv
end

set -l first 'test (count (commandline -opc)) = 1'
set -l second 'string match -qr "^\S+ salvage\$" -- (commandline -opc | string join " ")'
set -l later "not begin; $first; or $second; end"

complete -c safewritectl -f
complete -c safewritectl -n $first -a '(safewritectl --help | string replace -rf "^  ([a-z]+)   *(.*)" "\$1\t\$2")'
complete -c safewritectl -n $first -a '--help --version'
complete -c safewritectl -n $second -a '(__safewritectl_usage "salvage " | string replace -r " .*" "") --help'
complete -c safewritectl -n "$later; and __safewritectl_wants FILE DIR" -F
complete -c safewritectl -n "$later; and string match -q -- '-*' (commandline -ct)" -a '(__safewritectl_options)'
complete -c safewritectl -n "$later; and __safewritectl_wants ''" -a '(__safewritectl_operands)'
