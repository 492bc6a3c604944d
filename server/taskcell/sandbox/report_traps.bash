# What bash reads first where a command names `trap`: an EXIT trap of its own must run, be shown, and not take the place
# of the report. The function lets the builtin do its work on the command's own traps and looks at what came of it.
{
  __taskcell_report() {
    local status=$?
    @REPORT@
    return "$status"
  } 2>/dev/null
  trap() {
    local code=0 found='' error=''
    if [[ $BASH_SUBSHELL -eq 0 ]]; then
      # The command's own EXIT trap, as it would be without us.
      if [[ -v __taskcell_exit ]]; then builtin trap -- "$__taskcell_exit" EXIT; else builtin trap - EXIT; fi
      builtin trap "$@" || code=$?
      found=$(builtin trap -p EXIT)
      if [[ -n $found ]]; then
        builtin eval "__taskcell_exit=(${found#trap})"
        __taskcell_exit=${__taskcell_exit[1]}
      else
        builtin unset __taskcell_exit
      fi
      # The report comes before it too, for it may end the shell itself. `&& :` leaves it `$?`, and keeps `set -e` and an
      # ERR trap out of this.
      found='{ __taskcell_report && :; } 2>/dev/null'
      [[ -z ${__taskcell_exit-} ]] || found+=$'\n'$__taskcell_exit$'\n'$found
      builtin trap -- "$found" EXIT
    else
      # A subshell shows the traps of its parent, and has none of them.
      [[ -v __taskcell_exit || $(builtin trap -p EXIT) != *__taskcell_report* ]] || builtin trap - EXIT
      builtin trap "$@" || code=$?
    fi
    if [[ $code -ne 0 ]]; then
      error=$(builtin trap "$@" 2>&1)
      # A remark on usage has no line before it.
      [[ $error != *': line '*': '* ]] || error="$0: line ${BASH_LINENO[0]}: ${error#*: line *: }"
      builtin printf '%s\n' "$error" >&3
    fi
    return "$code"
  } 3>&2 2>/dev/null
  builtin trap '{ __taskcell_report && :; } 2>/dev/null' EXIT
  unset BASH_ENV
} 2>/dev/null
